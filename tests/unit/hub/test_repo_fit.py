"""The table of what fits, from a listing and one header, before any download."""

from pathlib import Path

import msgspec
import pytest

from innkeeper.errors import CorruptModelError, ModelFileError, NotFoundError
from innkeeper.formats import gguf
from innkeeper.hub.client import Hub
from innkeeper.hub.fit import RepoFit
from innkeeper.hub.listing import list_repo
from innkeeper.hub.source import MAX_PREFIX_BYTES, HubSource
from innkeeper.hub.variants import choose_variant, variants
from innkeeper.planner.fit import fit
from innkeeper.planner.hardware import Hardware
from innkeeper.planner.wishes import Wishes
from innkeeper.units import GIB, MIB
from tests.hub import HubFile, LocalHub
from tests.hub.models import BULK, write_llama

MACHINE = Hardware(
    system="Linux",
    cpu_name="test",
    num_physical_cores=8,
    num_usable_cores=8,
    instruction_sets=frozenset({"avx2", "fma", "f16c"}),
    total_ram_bytes=16 * GIB,
    available_ram_bytes=12 * GIB,
    limit_bytes=None,
    swap_free_bytes=0,
)
WISHES = Wishes(num_ctx=8192)
NUM_TOKENS = 128_256
COMPARED = ("IQ2_XXS", "Q3_K_S", "Q4_0", "Q5_K_M", "Q8_0", "F16")


def stub(path: Path) -> HubFile:
    """A file whose checksum nobody needs."""
    return HubFile(path, claimed_sha256="0" * 64)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Twenty quantizations of an 8B model with a header of some MiB."""
    folder = tmp_path_factory.mktemp("quants")
    return {
        f"m-{quant}.gguf": write_llama(
            folder / f"m-{quant}.gguf", quant, num_tokens=NUM_TOKENS, token_bytes=48
        )
        for quant in BULK
    }


@pytest.fixture
def table(server: LocalHub, hub: Hub, files: dict[str, Path]) -> RepoFit:
    server.add("org/m", {name: stub(path) for name, path in files.items()})
    listing = list_repo(hub, "org/m")
    return RepoFit(HubSource(hub, listing), variants(listing), MACHINE, WISHES)


def test_twenty_rows_cost_one_header(server: LocalHub, table: RepoFit) -> None:
    rows = table.rows()
    assert {row.variant.name for row in rows} == set(BULK)
    assert all(row.fit is not None for row in rows)
    assert 6 * MIB < server.sent() < 20 * 10**6
    assert len({seen.path for seen in server.gets()}) == 1


def test_each_row_is_near_what_its_own_header_says(table: RepoFit, files: dict[str, Path]) -> None:
    compared = [row for row in table.rows() if row.variant.name in COMPARED]
    assert len(compared) == len(COMPARED)
    for row in compared:
        truth = fit(gguf.read(files[row.variant.main.name]), MACHINE, WISHES, name="")
        assert row.fit is not None
        assert row.fit.needs.kv_bytes == truth.needs.kv_bytes
        assert row.fit.needs.compute_bytes == truth.needs.compute_bytes
        assert row.fit.needs.weights_bytes == pytest.approx(truth.needs.weights_bytes, rel=0.002)
        # a copy of some weights in the CPU's layout: mixes differ in which those are
        total = row.fit.needs.total_bytes
        assert total == pytest.approx(truth.needs.total_bytes, abs=truth.needs.weights_bytes / 3)
        assert row.fit.fits == truth.fits


def test_the_row_that_is_looked_at_is_exact(
    server: LocalHub, hub: Hub, table: RepoFit, files: dict[str, Path]
) -> None:
    rows = {row.variant.name: row for row in table.rows()}
    assert [name for name, row in rows.items() if row.is_exact] == ["Q4_K_M"]
    for name in ("Q6_K", "IQ3_XXS"):
        exact = table.exact(rows[name].variant)
        truth = fit(gguf.read(files[f"m-{name}.gguf"]), MACHINE, WISHES, name=f"org/m:{name}")
        assert exact.is_exact and exact.fit == msgspec.structs.replace(truth, quant=name)
        assert rows[name].fit is not None and rows[name].fit.approximate  # type: ignore[union-attr]


def test_what_does_not_fit_says_by_how_much(table: RepoFit) -> None:
    rows = {row.variant.name: row.fit for row in table.rows()}
    f16 = rows["F16"]
    assert f16 is not None and not f16.fits
    assert "too little" in f16.reason


def test_a_split_model_is_read_from_all_its_parts(
    server: LocalHub, hub: Hub, tmp_path: Path
) -> None:
    from tests.unit.formats.made_models import gguf_split

    parts = gguf_split(tmp_path, "m-Q4_K_M", 3)
    server.add("org/m", {part.name: stub(part) for part in parts})
    listing = list_repo(hub, "org/m")
    table = RepoFit(HubSource(hub, listing), variants(listing), MACHINE, WISHES)
    header = table.header(choose_variant(listing, None))
    assert len(header.tensors) == 3
    assert header.file_bytes == sum(part.stat().st_size for part in parts)


def test_a_header_that_lies_about_counts_is_refused_after_one_read(
    server: LocalHub, hub: Hub
) -> None:
    lie = b"GGUF" + (3).to_bytes(4, "little") + (10**6).to_bytes(8, "little") * 2 + bytes(2 * MIB)
    server.add("org/m", {"m-Q4_0.gguf": lie})
    listing = list_repo(hub, "org/m")
    with pytest.raises(ModelFileError):
        RepoFit(HubSource(hub, listing), variants(listing), MACHINE, WISHES).rows()
    assert server.sent() <= 3 * MIB


def test_no_header_is_fetched_beyond_its_limit(server: LocalHub, hub: Hub, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    with path.open("wb") as file:
        file.truncate(4 * GIB)
    server.add("org/m", {"m.gguf": stub(path)})
    source = HubSource(hub, list_repo(hub, "org/m"))
    with pytest.raises(CorruptModelError, match="more than any model"):
        source.read("m.gguf", MAX_PREFIX_BYTES + 1)
    assert server.gets() == []


def test_only_what_lacks_of_a_header_is_fetched(server: LocalHub, hub: Hub) -> None:
    server.add("org/m", {"m.gguf": bytes(5 * MIB)})
    source = HubSource(hub, list_repo(hub, "org/m"))
    for size in (MIB, MIB, 3 * MIB, 2 * MIB):
        assert len(source.read("m.gguf", size)) == size
    assert [seen.range for seen in server.gets()] == [
        f"bytes=0-{MIB - 1}",
        f"bytes={MIB}-{3 * MIB - 1}",
    ]


def test_a_repository_of_pickles_has_no_table(server: LocalHub, hub: Hub) -> None:
    server.add("org/m", {"pytorch_model.bin": b"p"})
    listing = list_repo(hub, "org/m")
    with pytest.raises(NotFoundError):
        RepoFit(HubSource(hub, listing), variants(listing), MACHINE, WISHES).rows()
