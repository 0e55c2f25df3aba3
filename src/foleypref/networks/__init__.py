"""The neural networks: one architecture per file, importing only torch and its shape annotations."""
