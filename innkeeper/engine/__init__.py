"""The generation loop: one thread owns the model; the rest of the package decides what it does."""
