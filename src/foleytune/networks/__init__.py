"""The neural networks themselves: one architecture a file, torch only, no files read, no settings classes."""
