"""Where the weights of a model lie, and how many bytes they take there."""

from dataclasses import dataclass

from innkeeper.formats.gguf_header import GgufHeader, TensorInfo
from innkeeper.planner.placement import Placement

_CPU_ALIGNMENT, _GPU_ALIGNMENT = 64, 128
_GPU_ROW_PAD = 512


@dataclass(frozen=True)
class Weights:
    """Bytes, by where they lie."""

    total: int
    in_ram: int
    """Neither copied into the CPU's layout nor on a GPU."""
    repacked: int
    on_gpus: list[int]
    streamed: int
    """The largest matrix in RAM beside a GPU, which long batches borrow into its buffer."""


def weigh(header: GgufHeader, placement: Placement, repack_types: frozenset[str]) -> Weights:
    """``repack_types``: those that llama.cpp copies into a layout for this CPU."""
    total = in_ram = repacked = streamed = 0
    on_gpus = [0] * placement.num_gpus
    for tensor in header.tensors:
        size = padded(tensor.num_bytes, _CPU_ALIGNMENT)
        total += size
        place = placement.tensor(tensor)
        if place is not None:
            on_gpus[place] += _gpu_tensor_bytes(tensor)
        elif _is_repacked(tensor, repack_types):
            repacked += size
        else:
            in_ram += size
        if place is None and placement.num_gpus and not tensor.name.startswith("token_embd"):
            streamed = max(streamed, size)
    tied = header.tensors_by_name.get("token_embd.weight")
    if tied is not None and "output.weight" not in header.tensors_by_name:
        size = padded(tied.num_bytes, _CPU_ALIGNMENT)
        place = placement.layer(placement.num_layers)
        if place is not None:
            total, on_gpus[place] = total + size, on_gpus[place] + _gpu_tensor_bytes(tied)
        elif _repacks(tied, repack_types):
            total, repacked = total + size, repacked + size
    return Weights(total, in_ram, repacked, on_gpus, streamed)


def _gpu_tensor_bytes(tensor: TensorInfo) -> int:
    """CUDA pads quantized rows to 512 weights and tensors to 128 bytes."""
    size = tensor.num_bytes
    over = tensor.shape[0] % _GPU_ROW_PAD if tensor.shape else 0
    if tensor.type.block_size > 1 and over:
        size += tensor.type.row_bytes(_GPU_ROW_PAD - over)
    return padded(size, _GPU_ALIGNMENT)


def _is_repacked(tensor: TensorInfo, repack_types: frozenset[str]) -> bool:
    if tensor.name.startswith("token_embd"):
        return False  # rows are looked up, never multiplied
    dims = len(tensor.shape)
    return (dims == 2 or (dims == 3 and "_exps" in tensor.name)) and _repacks(tensor, repack_types)


def _repacks(tensor: TensorInfo, repack_types: frozenset[str]) -> bool:
    return tensor.type.name.lower() in repack_types and tensor.shape[1] % 8 == 0


def padded(size: int, step: int) -> int:
    """The next multiple of ``step``."""
    return (size + step - 1) // step * step
