"""One file per family: the function called like a class gives the dry wave (64,000,) of one such actor."""
