"""One file a family: `SOUNDS[label](actor, rng)` gives the dry wave (64,000,) of one object, at any level."""
