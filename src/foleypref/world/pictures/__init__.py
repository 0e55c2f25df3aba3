"""One file a family: `PICTURES[label](brush)` draws one object into the square [-1, 1]² of its actor."""
