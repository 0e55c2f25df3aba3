"""The neural networks: one architecture per file, importing only torch and jaxtyping."""
