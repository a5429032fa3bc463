"""Several models at once: named by requests, kept while there is room, never mixed up."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from innkeeper.core import EngineConfig, GenerateRequest
from innkeeper.core.frames import Delta, Finished
from innkeeper.enginelink import EngineLink
from innkeeper.errors import EngineLoadError, NoModelError, NotEnoughMemoryError, NotFoundError
from innkeeper.serving import EngineDefaults, Generate, KeepRules, Models
from innkeeper.serving.fit import Need
from innkeeper.units import GIB, MIB
from tests.unit.serving.conftest import small_computer

NAMES = "abc"


class Inn:
    """Models whose replies are their names, and a count of every load."""

    def __init__(self, folder: Path, keep: KeepRules, need: Need, **options: str) -> None:
        for name in NAMES:
            (folder / f"{name}.gguf").write_bytes(b"GGUF")
        self.started: list[str] = []
        self.broken: set[str] = set()
        self.most_alive = 0
        self._options = options
        self._alive: set[EngineLink] = set()
        self.models = Models(
            folder,
            EngineDefaults(backend="fake", num_ctx=256),
            keep=keep,
            start=self._start,
            check=lambda _: need,
            hardware=lambda: small_computer(taken=len(self._alive) * need.ram_bytes),
        )
        self.generate = Generate(self.models)

    async def _start(self, config: EngineConfig, **options: Any) -> EngineLink:
        self.started.append(config.name)
        if config.name in self.broken:
            await asyncio.sleep(0)
            raise EngineLoadError("no room")
        own = {"reply": config.name, **self._options}
        link = await EngineLink.start(msgspec.structs.replace(config, options=own), **options)
        self._alive.add(link)
        self.most_alive = max(self.most_alive, len(self._alive))
        link.lost.add_done_callback(lambda _: self._alive.discard(link))
        return link

    async def ask(self, name: str) -> tuple[str, tuple[str, ...]]:
        """The reply and its warnings."""
        text, warnings = "", ()
        async for event in self.generate.stream(GenerateRequest(prompt="?", model=name)):
            if isinstance(event, Delta):
                text += event.text
            elif isinstance(event, Finished):
                warnings = event.warnings
        return text, warnings

    def names(self) -> list[str]:
        return sorted(model.name for model in self.models.loaded)


MakeInn = Callable[..., Inn]


@pytest.fixture
async def make_inn(tmp_path: Path) -> AsyncIterator[MakeInn]:
    made: list[Inn] = []

    def make(need: Need | None = None, options: dict[str, str] | None = None, **keep: Any) -> Inn:
        made.append(Inn(tmp_path, KeepRules(**keep), need or Need(), **(options or {})))
        return made[-1]

    yield make
    for inn in made:
        await inn.models.close()


async def test_a_request_loads_the_model_that_it_names_and_both_stay(make_inn: MakeInn) -> None:
    inn = make_inn()
    for name in "abaab":
        assert await inn.ask(name) == (name, ())
    assert inn.started.count("b") == 1
    assert await inn.ask("") == ("a", ()), "the first one stays the current one"


@pytest.mark.parametrize("name", ["B", "b.gguf", "b:latest", "koboldcpp/b", " b "])
async def test_names_are_read_as_clients_write_them(make_inn: MakeInn, name: str) -> None:
    inn = make_inn()
    assert await inn.ask(name) == ("b", ())


async def test_a_name_that_nobody_has_means_the_only_loaded_model(make_inn: MakeInn) -> None:
    inn = make_inn()
    with pytest.raises(NotFoundError, match="'gpt-4' here; there are: a, b, c"):
        await inn.ask("gpt-4")
    await inn.ask("a")
    text, (warning,) = await inn.ask("gpt-4")
    assert text == "a" and "no model 'gpt-4'" in warning and "a answered" in warning
    await inn.ask("b")
    with pytest.raises(NotFoundError, match="there are: a, b, c"):
        await inn.ask("gpt-4")


async def test_exact_names_are_asked_for_by_a_setting(make_inn: MakeInn) -> None:
    inn = make_inn(exact_names=True)
    await inn.ask("a")
    with pytest.raises(NotFoundError):
        await inn.ask("gpt-4")


async def test_no_name_and_nothing_loaded_is_no_model(make_inn: MakeInn) -> None:
    with pytest.raises(NoModelError):
        await make_inn().ask("")


async def test_the_least_used_model_leaves_when_memory_is_short(make_inn: MakeInn) -> None:
    inn = make_inn(Need(300 * MIB, 100 * MIB))
    for name in "aba":
        await inn.ask(name)
    assert inn.names() == ["a", "b"]
    assert await inn.ask("c") == ("c", ())
    assert inn.names() == ["a", "c"]
    assert inn.most_alive == 2


async def test_pinned_models_stay(make_inn: MakeInn) -> None:
    inn = make_inn(Need(300 * MIB, 100 * MIB), pinned=frozenset("ab"))
    await inn.ask("a")
    await inn.ask("b")
    with pytest.raises(NotEnoughMemoryError, match="beside the pinned models"):
        await inn.ask("c")
    assert inn.names() == ["a", "b"] and await inn.ask("a") == ("a", ())


async def test_at_most_so_many_are_loaded(make_inn: MakeInn) -> None:
    inn = make_inn(max_loaded=1)
    for name in "abca":
        assert (await inn.ask(name))[0] == name
        assert inn.names() == [name]


@pytest.mark.parametrize("need", [Need(), Need(600 * MIB, 100 * MIB)])
async def test_clients_that_alternate_get_their_own_model(make_inn: MakeInn, need: Need) -> None:
    inn = make_inn(need, max_loaded=1)

    async def client(number: int) -> None:
        dice = random.Random(number)
        for _ in range(4):
            name = dice.choice("ab")
            assert await inn.ask(name) == (name, ())

    await asyncio.gather(*(client(number) for number in range(4)))
    if need.ram_bytes:
        assert inn.most_alive == 1


async def test_a_reply_being_written_is_not_cut_by_a_swap(make_inn: MakeInn) -> None:
    inn = make_inn(Need(GIB * 3 // 4, 0), options={"reply": "x" * 100, "tokens_per_second": "400"})
    slow = asyncio.create_task(inn.ask("a"))
    while not (inn.models.link and inn.models.link.num_open):
        await asyncio.sleep(0.005)
    assert (await inn.ask("b"))[0] == "x" * 100
    assert (await slow)[0] == "x" * 100
    assert inn.most_alive == 1


async def test_clients_that_leave_during_a_load_make_one_load(make_inn: MakeInn) -> None:
    inn = make_inn()
    tasks = [asyncio.create_task(inn.ask("a")) for _ in range(100)]
    while not inn.started:
        await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert await inn.ask("a") == ("a", ())
    assert inn.started == ["a"]
    assert not inn.models.loaded[0].is_busy


async def test_a_load_that_fails_is_told_to_all_who_wait_and_tried_again(make_inn: MakeInn) -> None:
    inn = make_inn(Need(GIB * 3 // 4, 0))
    await inn.ask("a")
    inn.broken.add("b")
    waiting = [asyncio.create_task(inn.ask("b")) for _ in range(5)]
    done = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(error, EngineLoadError) for error in done)
    assert inn.started.count("b") == 1
    assert await inn.ask("") == ("a", ()), "the model before it comes back"
    inn.broken.clear()
    assert await inn.ask("b") == ("b", ())


async def test_an_idle_model_leaves_and_comes_back_when_asked(make_inn: MakeInn) -> None:
    inn = make_inn(idle_seconds=0.01, pinned=frozenset("b"))
    await inn.ask("a")
    await inn.ask("b")
    while inn.names() != ["b"]:
        await asyncio.sleep(0.01)
    inn.models.keep_for("b", 0)
    while inn.names():
        await asyncio.sleep(0.01)
    assert await inn.ask("") == ("b", ())


async def test_unload_by_name_leaves_the_others(make_inn: MakeInn) -> None:
    inn = make_inn()
    await inn.ask("a")
    await inn.ask("b")
    await inn.models.unload("a")
    assert inn.names() == ["b"]
    await inn.models.unload()
    assert inn.names() == []
    with pytest.raises(NoModelError):
        await inn.ask("")
