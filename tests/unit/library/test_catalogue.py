"""The catalogue, and which of its models suits which machine, by headers from a hub."""

from pathlib import Path

import msgspec
import pytest

from innkeeper.cli.main import main
from innkeeper.errors import NotEnoughMemoryError, NotFoundError
from innkeeper.hub.client import Hub
from innkeeper.hub.fit import RepoFit
from innkeeper.hub.listing import check_repo_id, list_repo
from innkeeper.hub.source import HubSource
from innkeeper.hub.variants import Variant, variants
from innkeeper.library import CatalogueEntry, Choice, catalogue, choose
from innkeeper.planner.fit import FitRow, fit
from innkeeper.planner.gpus import Gpu
from innkeeper.planner.hardware import Hardware
from innkeeper.planner.wishes import Wishes
from innkeeper.units import GIB
from tests.hub import HubFile, LocalHub
from tests.hub.models import BULK, write_llama
from tests.unit.planner.headers import header

BIG_VOCAB, LONG = {"num_tokens": 128_256}, {"num_ctx_train": 131_072}
WIDE = {"num_layers": 40, "width": 5120, **LONG}
MANY = {"width": 2048, "ffn_width": 768, "num_kv_heads": 4, "num_experts": 128}
SHAPES: dict[str, dict[str, int]] = {
    "1B": {"num_layers": 16, "width": 2048, "ffn_width": 8192, **BIG_VOCAB},
    "3B": {"num_layers": 28, "width": 3072, "ffn_width": 8192, "num_heads": 24, **BIG_VOCAB},
    "4B": {"num_layers": 36, "width": 2560, "ffn_width": 9728, "num_heads": 20, "num_kv_heads": 5},
    "7B": {},
    "8B": BIG_VOCAB,
    "12B": WIDE,
    "8x7B": {"num_experts": 8, "num_ctx_train": 32_768},
    "30B": {"num_layers": 48, **MANY, **BIG_VOCAB, **LONG},
    "24B": {**WIDE, "ffn_width": 32_768},
}
"""About the shapes of the catalogue's models, by the size in their names."""


def machine(ram_gib: float, vram_gib: float = 0, bandwidth: float = 40e9) -> Hardware:
    gpu = Gpu(
        index=0,
        name="GPU",
        total_bytes=int(vram_gib * GIB),
        free_bytes=int((vram_gib - 0.4) * GIB),
        bandwidth=900e9,
    )
    return Hardware(
        system="Linux",
        cpu_name="test",
        num_physical_cores=8,
        num_usable_cores=8,
        instruction_sets=frozenset({"avx2", "fma", "f16c"}),
        total_ram_bytes=int(ram_gib * GIB),
        available_ram_bytes=int((ram_gib - 2) * GIB),
        limit_bytes=None,
        swap_free_bytes=0,
        gpus=(gpu,) if vram_gib else (),
        memory_bandwidth=bandwidth,
    )


def size_of(entry: CatalogueEntry) -> str:
    """Which shape it has, by its name."""
    words = entry.name.replace("8x7B", "8x7B ").split()
    return next(word for word in words if word in SHAPES)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    """Repository -> file -> where it lies."""
    folder, found = tmp_path_factory.mktemp("catalogue"), {}
    for entry in catalogue()[1]:
        shape = SHAPES[size_of(entry)]
        found[entry.repo] = {
            f"m-{quant}.gguf": write_llama(folder / entry.repo / f"m-{quant}.gguf", quant, **shape)
            for quant in entry.quants
        }
    return found


@pytest.fixture
def stocked(server: LocalHub, shelf: dict[str, dict[str, Path]]) -> LocalHub:
    """A hub with the catalogue's repositories."""
    for repo, files in shelf.items():
        stubs = {name: HubFile(path, claimed_sha256="0" * 64) for name, path in files.items()}
        server.add(repo, stubs)
    return server


def rows_at(hub: Hub, entry: CatalogueEntry, hardware: Hardware) -> list[FitRow]:
    listing = list_repo(hub, entry.repo)
    table = RepoFit(HubSource(hub, listing), variants(listing), hardware, Wishes())
    return [row.fit for row in table.rows() if row.fit is not None]


def chosen_for(hub: Hub, hardware: Hardware) -> tuple[Choice, list[Choice]]:
    return choose(catalogue()[1], lambda entry: rows_at(hub, entry, hardware))


def test_every_entry_is_a_repository_with_quantizations_and_a_reason() -> None:
    date, entries = catalogue()
    assert date.year >= 2026
    for entry in entries:
        check_repo_id(entry.repo)
        assert set(entry.quants) <= set(BULK)
        assert 20 < len(entry.why) < 110
    repos = [entry.repo for entry in entries]
    assert len(set(repos)) == len(repos)


def test_the_guides_two_models_are_in_it() -> None:
    repos = " ".join(entry.repo for entry in catalogue()[1])
    assert "Kunoichi-DPO-v2-7B" in repos and "Mixtral-8x7B" in repos


@pytest.mark.parametrize(
    ("hardware", "model"),
    [
        pytest.param(machine(8), "Qwen3 4B Instruct 2507", id="8 GB"),
        pytest.param(machine(16, bandwidth=60e9), "Llama 3 Stheno v3.2 8B", id="16 GB"),
        pytest.param(machine(32, 24), "Mistral Small 3.2 24B Instruct 2506", id="24 GB VRAM"),
    ],
)
def test_a_machine_gets_the_best_model_that_is_fluent_on_it(
    stocked: LocalHub, hub: Hub, hardware: Hardware, model: str
) -> None:
    best, next_best = chosen_for(hub, hardware)
    assert best.entry.name == model
    assert best.row.fits and best.row.num_ctx >= 8192 and best.row.tokens_per_second >= 8
    assert best.quant in best.entry.quants
    assert best.model == f"{best.entry.repo}:{best.quant}"
    assert best.entry.repo not in {choice.entry.repo for choice in next_best}


@pytest.mark.parametrize(
    ("hardware", "repo"),
    [
        pytest.param(machine(8), "Qwen3-4B", id="8 GB"),
        pytest.param(machine(16, bandwidth=60e9), "Stheno", id="16 GB"),
        pytest.param(machine(32, 24), "Mistral-Small-3.2-24B", id="24 GB VRAM"),
    ],
)
def test_up_without_a_model_takes_what_the_exact_numbers_say(
    stocked: LocalHub,
    hub: Hub,
    hardware: Hardware,
    repo: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it begins to download is the best of all rows, each from its own header."""
    taken: list[Variant] = []

    def download(settings: object, hub: Hub, variant: Variant) -> Path:
        taken.append(variant)
        return tmp_path / "m.gguf"

    monkeypatch.setenv("INNKEEPER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("innkeeper.cli.pull.machine", lambda _: hardware)
    monkeypatch.setattr("innkeeper.cli.pull.download", download)
    for module in ("pull", "fit"):
        monkeypatch.setattr(f"innkeeper.cli.{module}.open_hub", lambda _: hub)
    monkeypatch.setattr("innkeeper.app.serve.run", lambda *_: None)
    with pytest.raises(SystemExit):
        main(["up", "--yes"])
    [variant] = taken
    assert repo in variant.repo_id
    listing = list_repo(hub, variant.repo_id)
    exact = RepoFit(HubSource(hub, listing), variants(listing), hardware, Wishes()).exact(variant)
    assert exact.fit is not None and exact.fit.fits and exact.fit.num_ctx >= 8192


def test_a_machine_that_nothing_fits_is_told_by_how_much(stocked: LocalHub, hub: Hub) -> None:
    with pytest.raises(NotEnoughMemoryError, match=r"smallest is Llama 3\.2 1B.*too little"):
        chosen_for(hub, machine(2.6))


def test_a_repository_that_is_gone_is_passed_over(stocked: LocalHub, hub: Hub) -> None:
    best, _ = chosen_for(hub, machine(16))
    del stocked.repos[best.entry.repo]
    second, _ = chosen_for(hub, machine(16))
    assert second.entry.repo != best.entry.repo


def test_a_hub_without_any_of_them_says_why(server: LocalHub, hub: Hub) -> None:
    with pytest.raises(NotFoundError):
        chosen_for(hub, machine(16))


def test_a_slow_large_model_loses_to_a_quick_smaller_one(stocked: LocalHub, hub: Hub) -> None:
    slow, _ = chosen_for(hub, machine(64, bandwidth=12e9))
    quick, _ = chosen_for(hub, machine(64, bandwidth=300e9))
    assert slow.row.tokens_per_second >= 4
    assert quick.entry.merit > slow.entry.merit


def test_quantizations_outside_the_catalogue_are_not_chosen() -> None:
    entry = CatalogueEntry("m", "org/m", ("Q4_K_M",), 1, "")
    row = fit(header(), machine(16), Wishes(), name="m")
    crude, good = (msgspec.structs.replace(row, quant=quant) for quant in ("Q2_K", "Q4_K_M"))
    best, _ = choose([entry], lambda _: [crude, good])
    assert best.quant == "Q4_K_M"
