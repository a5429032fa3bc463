"""Models over the fake backend, in real engine processes."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from innkeeper.planner.hardware import Hardware
from innkeeper.serving import EngineDefaults, Models
from innkeeper.units import GIB

MakeModels = Callable[..., Models]


def small_computer(taken: int = 0) -> Hardware:
    """1 GiB, no GPU. taken: bytes of it that are not free."""
    return Hardware(
        system="Linux",
        cpu_name="",
        num_physical_cores=1,
        num_usable_cores=1,
        instruction_sets=frozenset(),
        total_ram_bytes=GIB,
        available_ram_bytes=GIB - taken,
        limit_bytes=None,
        swap_free_bytes=0,
    )


@pytest.fixture
async def make_models(tmp_path: Path) -> AsyncIterator[MakeModels]:
    made: list[Models] = []
    (tmp_path / "models").mkdir()

    def make(
        num_ctx: int = 256, retry_seconds: tuple[float, ...] = (0.0,), **options: str
    ) -> Models:
        defaults = EngineDefaults(backend="fake", num_ctx=num_ctx, options=options)
        made.append(
            Models(
                tmp_path / "models",
                defaults,
                log_folder=tmp_path / "logs",
                retry_seconds=retry_seconds,
            )
        )
        return made[-1]

    yield make
    for models in made:
        await models.close()
