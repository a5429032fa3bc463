"""Which cells of the pool are free, and how many sequences hold each of the others."""

from collections.abc import Iterable, Sequence


class Cells:
    """A cell holds one token; it is free once nobody holds it."""

    def __init__(self, num_cells: int) -> None:
        self.num_cells = num_cells
        self._holders = [0] * num_cells
        self._free = list(range(num_cells - 1, -1, -1))

    @property
    def num_free(self) -> int:
        return len(self._free)

    def take(self, count: int) -> list[int]:
        """Free cells, held once from now on. The caller made sure that there are enough."""
        taken = [self._free.pop() for _ in range(count)]
        for cell in taken:
            self._holders[cell] = 1
        return taken

    def hold(self, cells: Sequence[int]) -> None:
        for cell in cells:
            self._holders[cell] += 1

    def let_go(self, cells: Sequence[int]) -> None:
        for cell in cells:
            self._holders[cell] -= 1
            if self._holders[cell] == 0:
                self._free.append(cell)

    def are_private(self, cells: Iterable[int]) -> bool:
        """Whether each of them is held once."""
        return all(self._holders[cell] == 1 for cell in cells)

    def check(self, held: Iterable[int]) -> None:
        """Raises AssertionError unless ``held`` names each cell as often as it is held."""
        holders = [0] * self.num_cells
        for cell in held:
            holders[cell] += 1
        assert holders == self._holders, "holders miscounted"
        assert len(set(self._free)) == len(self._free) == holders.count(0), "free list wrong"
        assert not any(map(holders.__getitem__, self._free)), "a held cell is in the free list"
