"""Which models' cached keys llama.cpp can move to other positions: the planner and the backend must
agree, since an edit of the cache needs room of its own."""

_UNROTATED_LAYERS = frozenset(
    "smollm3 cohere2 cohere2moe exaone4 exaone-moe llama4 smallthinker afmoe muse-glimmer".split()
)
"""They have layers that see no positions, whose keys llama.cpp rotates with the others."""
_MOVABLE_WINDOWS = frozenset(("gemma2", "gemma3", "gpt-oss"))
"""Sliding windows whose layers all see positions. Seen to work on Gemma 3 (``tests/model``); of the
two others llama.cpp's source says so."""
FULL_KV_TYPES = frozenset(("f32", "f16", "bf16"))
"""Others are quantized anew at every shift, the whole pool with them, and drift."""


def can_shift(architecture: str, *, has_windows: bool, swa_full: bool) -> bool:
    """Whether keys of an attention model may be moved.

    swa_full: sliding-window layers keep all tokens, not only those in the window.
    """
    if has_windows:
        return swa_full and architecture in _MOVABLE_WINDOWS
    return architecture not in _UNROTATED_LAYERS
