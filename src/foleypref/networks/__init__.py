"""The neural networks themselves: one architecture a file, torch (and shapes as types) alone."""
