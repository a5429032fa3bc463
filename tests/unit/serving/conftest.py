"""Models over the fake backend, in real engine processes."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from innkeeper.serving import EngineDefaults, Models

MakeModels = Callable[..., Models]


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
