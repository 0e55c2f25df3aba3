"""One file per family: the function called like a class draws it into the square [-1, 1]² of its actor."""
