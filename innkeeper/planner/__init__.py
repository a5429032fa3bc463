"""What fits: the machine, the bytes a model needs on it, and the settings that follow."""
