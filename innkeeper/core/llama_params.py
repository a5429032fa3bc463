"""The part of llama.cpp's parameters that a real load and the planner's dry run must agree on.

The library is an argument: only engine processes and the planner's children may link it.
"""

import ctypes
from collections.abc import Sequence
from typing import Any


class _BufferOverride(ctypes.Structure):
    """``llama_model_tensor_buft_override``: tensors that match a pattern, and where they go."""

    _fields_ = (("pattern", ctypes.c_char_p), ("buffer_type", ctypes.c_void_p))


def set_placement(
    lib: Any,
    params: Any,
    *,
    num_gpu_layers: int,
    num_cpu_experts: int = 0,
    tensor_split: Sequence[float] = (),
    repack: bool = True,
) -> None:
    """Writes where the weights go into ``params``, a ``llama_model_params`` of ``lib``.

    num_cpu_experts: layers, from the first, whose experts stay in RAM. tensor_split: each GPU's
    share, empty = llama.cpp's choice. repack: whether weights are copied into the CPU's layout.
    """
    params.n_gpu_layers = num_gpu_layers
    params.use_extra_bufts = repack
    if tensor_split:
        most = int(lib.llama_max_devices())
        shares = (ctypes.c_float * most)(*tensor_split[:most])
        params.tensor_split = shares
        params.kept_split = shares  # llama.cpp keeps the pointer
    if num_cpu_experts:
        lib._lib.ggml_backend_cpu_buffer_type.restype = ctypes.c_void_p
        ram = lib._lib.ggml_backend_cpu_buffer_type()
        patterns = [
            rf"blk\.{il}\.ffn_(up|down|gate|gate_up)_(ch|)exps" for il in range(num_cpu_experts)
        ]
        rows = [_BufferOverride(pattern.encode(), ram) for pattern in patterns]
        table = (_BufferOverride * (len(rows) + 1))(*rows)  # a row of nulls ends it
        params.tensor_buft_overrides = ctypes.cast(table, ctypes.c_void_p)
        params.kept_overrides = (table, rows)
