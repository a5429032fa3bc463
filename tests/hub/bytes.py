"""Content for files that look like no other."""

import random


def noise(num_bytes: int, seed: int = 1) -> bytes:
    """The same for the same seed."""
    return random.Random(seed).randbytes(num_bytes)
