"""Which device each part of a model lies on, as llama.cpp divides it."""

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate

from innkeeper.formats.gguf_header import TensorInfo

_BLOCK = re.compile(r"blk\.(\d+)\.")
_EXPERTS = re.compile(r"ffn_(?:up|down|gate|gate_up)_(?:ch|)exps")


@dataclass(frozen=True)
class Placement:
    """Where the layers of one model go. GPUs are counted from 0; None means RAM."""

    num_layers: int
    num_gpu_layers: int = 0
    """Counted as llama.cpp does: the output first, then the last blocks; -1 = all."""
    num_cpu_experts: int = 0
    """Blocks, from the first, whose experts stay in RAM whatever the number of layers."""
    shares: tuple[float, ...] = (1.0,)
    """What part of the offloaded layers each GPU gets; any scale."""

    @property
    def num_gpus(self) -> int:
        """Those that could get layers; 0 if nothing is offloaded."""
        return len(self.shares) if self.num_gpu_layers else 0

    @property
    def is_whole(self) -> bool:
        """Whether every layer is offloaded, experts left aside."""
        return self._first == 0

    def layer(self, index: int) -> int | None:
        """The GPU of block ``index``; the output counts as the block after the last."""
        first = self._first
        if index < first:
            return None
        part = (index - first) / (self.num_layers + 1 - first)
        return min(bisect_right(self._ends, part), len(self.shares) - 1)

    def tensor(self, tensor: TensorInfo) -> int | None:
        """The GPU that holds ``tensor``. A tied embedding's copy is another matter."""
        if not self.num_gpu_layers:
            return None
        block, is_expert = _block(tensor.name)
        if block is None:
            is_input = tensor.name.startswith("token_embd")
            return None if is_input else self.layer(self.num_layers)
        return None if is_expert and block < self.num_cpu_experts else self.layer(block)

    @cached_property
    def _ends(self) -> list[float]:
        """Where each GPU's part of the offloaded layers ends, 0 to 1."""
        total = sum(self.shares)
        return [end / total for end in accumulate(self.shares)]

    @cached_property
    def _first(self) -> int:
        """The first block on a GPU; beyond the output without any."""
        wanted = self.num_gpu_layers
        if wanted < 0 or wanted > self.num_layers:
            return 0
        return self.num_layers + 1 - wanted


@lru_cache(maxsize=8192)
def _block(tensor_name: str) -> tuple[int | None, bool]:
    """The block that the tensor belongs to, and whether it holds experts. A plan asks for the same
    names once for each of its candidates."""
    found = _BLOCK.match(tensor_name)
    return int(found[1]) if found else None, bool(_EXPERTS.search(tensor_name))


def sums(num_gpus: int, parts: Sequence[tuple[int | None, int]]) -> tuple[int, list[int]]:
    """(bytes in RAM, bytes per GPU) of ``parts``: pairs of a place and bytes."""
    ram, gpus = 0, [0] * num_gpus
    for place, size in parts:
        if place is None:
            ram += size
        else:
            gpus[place] += size
    return ram, gpus
