"""The estimate against llama.cpp's own allocations, measured for 16 models in 4,056 contexts."""

import csv
import importlib.util
import json
import os
import random
import statistics
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.fit_error import settings_of
from innkeeper.cli.main import main
from innkeeper.formats import gguf
from innkeeper.planner.estimate import MemoryEstimate, estimate

SHARED = Path(os.environ.get("INNKEEPER_SHARED", Path(__file__).parents[3] / "shared")) / "data"
TRUTH = SHARED / "memory_ground_truth.csv"

pytestmark = pytest.mark.skipif(
    not TRUTH.exists(), reason=f"{TRUTH} is not there (set INNKEEPER_SHARED)"
)


@dataclass(frozen=True)
class Row:
    """One measured context and what we say about it."""

    truth: dict[str, str]
    ours: MemoryEstimate

    def measured(self, column: str) -> int:
        return int(self.truth[column])

    @property
    def compute_error(self) -> float:
        return abs(self.ours.compute_bytes / self.measured("compute_bytes") - 1)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the headers of the table's models."""
    folder = tmp_path_factory.mktemp("shapes")
    spec = importlib.util.spec_from_file_location("shapes", SHARED / "make_model_shapes.py")
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for name, config in script.MODELS.items():
        script.build(name, config, str(folder))
    return folder


@pytest.fixture(scope="module")
def rows(shapes: Path) -> list[Row]:
    headers = {path.stem: gguf.read(path) for path in shapes.glob("*.gguf")}
    with TRUTH.open() as file:
        table = list(csv.DictReader(file))
    return [Row(row, estimate(headers[row["model"]], settings_of(row))) for row in table]


def test_weights_equal_to_the_byte(rows: list[Row]) -> None:
    assert len(rows) == 4056
    for row in rows:
        assert row.ours.weights_bytes == row.measured("model_bytes")
        assert row.ours.repack_bytes == row.measured("model_repack_bytes")


def test_kv_and_recurrent_state_equal_to_the_byte(rows: list[Row]) -> None:
    for row in rows:
        assert row.ours.kv_bytes + row.ours.recurrent_bytes == row.measured("context_bytes")
        logged_mib = float(row.truth["log_rs_mib"])
        assert row.ours.recurrent_bytes / 2**20 == pytest.approx(logged_mib, abs=0.0051)


def test_output_buffer_equals_the_log(rows: list[Row]) -> None:
    for row in rows:
        logged_mib = float(row.truth["log_output_mib"])
        assert row.ours.output_bytes / 2**20 == pytest.approx(logged_mib, abs=0.0051)


def test_the_command_answers_with_the_same_numbers(
    rows: list[Row], shapes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repacked = [row for row in rows if row.truth["repack"] == "1"]
    for row in random.Random(0).sample(repacked, 24):
        truth = row.truth
        flags = {
            "--ctx": truth["n_ctx"],
            "--batch": truth["n_batch"],
            "--ubatch": truth["n_ubatch"],
            "--parallel": truth["n_seq_max"],
            "--kv-type": f"{truth['type_k']},{truth['type_v']}",
            "--outputs": truth["n_outputs_max"],
            "--gpu-layers": "0",
        }
        switches = ["--kv-unified" if truth["kv_unified"] == "1" else "--no-kv-unified"]
        switches += ["--flash-attn" if truth["flash_attn"] == "1" else "--no-flash-attn"]
        named = [word for flag in flags.items() for word in flag]
        path = shapes / f"{truth['model']}.gguf"
        with pytest.raises(SystemExit):
            main(["fit", str(path), "--json", "--no-verify", *named, *switches])
        found = json.loads(capsys.readouterr().out)
        for kind in ("kv", "recurrent", "output", "compute"):
            assert found[f"{kind}_bytes"] == getattr(row.ours, f"{kind}_bytes"), (kind, truth)


def test_compute_is_close_where_it_claims_to_be(rows: list[Row]) -> None:
    errors = sorted(row.compute_error for row in rows if row.ours.is_exact)
    assert len(errors) == 3648
    print(
        f"compute error of {len(errors)} contexts: median {statistics.median(errors):.2%}, "
        f"p90 {errors[int(len(errors) * 0.9)]:.2%}, max {errors[-1]:.2%}"
    )
    assert statistics.median(errors) <= 0.005
    assert errors[int(len(errors) * 0.9)] <= 0.06
    assert errors[-1] <= 0.15


def test_only_mla_without_flash_attention_and_hybrids_call_themselves_inexact(
    rows: list[Row],
) -> None:
    blind = {(r.truth["arch"], r.truth["flash_attn"]) for r in rows if not r.ours.is_exact}
    assert blind == {("deepseek2", "0"), ("qwen3next", "0"), ("qwen3next", "1")}


def test_total_is_within_a_hundredth_at_the_default_batch(rows: list[Row]) -> None:
    for row in rows:
        if row.measured("n_ubatch") != 512:
            continue
        ours = row.ours
        total = ours.weights_bytes + ours.kv_bytes + ours.recurrent_bytes + ours.compute_bytes
        columns = ("model_bytes", "context_bytes", "compute_bytes")
        assert total == pytest.approx(sum(map(row.measured, columns)), rel=0.01)
