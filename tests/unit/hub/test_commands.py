"""fit, identify, pull, ls and rm as a person (or a program) calls them."""

import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from innkeeper import demo
from innkeeper.app import Home
from innkeeper.app.engines import engine_defaults
from innkeeper.cli.main import main
from innkeeper.cli.pull import obtain
from innkeeper.config import load_settings
from innkeeper.errors import InvalidRequestError
from innkeeper.formats import gguf
from innkeeper.library import catalogue
from innkeeper.planner.estimate import ContextSettings, estimate
from innkeeper.planner.hardware import probe
from innkeeper.planner.plan import RESERVE_RAM_BYTES
from innkeeper.planner.tune import CpuSettings, Timing, Tuned, remember
from innkeeper.serving.fit import Need, check_model, choose_sizes
from tests.hub import Fault, HubFile, LocalHub
from tests.hub.models import write_llama
from tests.unit.formats import made_models as made

SHAPE = {"num_layers": 2, "width": 512, "ffn_width": 1024, "num_heads": 8, "num_tokens": 1000}


@pytest.fixture(autouse=True)
def endpoint(server: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``HF_ENDPOINT`` does when the library is imported; and a memory of known speed."""
    monkeypatch.setattr("innkeeper.planner.bandwidth.measure_bandwidth", lambda _: 40e9)
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def stocked(server: LocalHub, tmp_path: Path) -> LocalHub:
    """A repository of two small quantizations."""
    files: dict[str, bytes | HubFile] = {"README.md": b"# m"}
    for quant in ("Q4_K_M", "Q8_0"):
        path = write_llama(tmp_path / f"m-{quant}.gguf", quant, **SHAPE)
        files[path.name] = HubFile(path)
    server.add("org/m", files)
    return server


class Ran:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command line as ``innkeeper`` does."""

    def called(*arguments: str) -> Ran:
        with pytest.raises(SystemExit) as caught:
            main(list(arguments))
        out, err = capsys.readouterr()
        return Ran(int(caught.value.code or 0), out, err)

    return called


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What ``up`` would have served."""
    paths: list[Path] = []
    monkeypatch.setattr("innkeeper.app.serve.run", lambda _s, _h, path, _screen: paths.append(path))
    monkeypatch.setattr("innkeeper.app.logs.start_logging", lambda *_: None)
    return paths


def test_pull_prints_where_the_model_is_and_how_it_went(
    stocked: LocalHub, run: Any, home: Path
) -> None:
    found = run("pull", "org/m:q8_0")
    path = home / "models" / "org" / "m" / "m-Q8_0.gguf"
    assert (found.code, found.out) == (0, f"{path}\n")
    assert path.stat().st_size == stocked.repos["org/m"].files["m-Q8_0.gguf"].size
    assert "org/m Q8_0: 100%" in found.err


def test_hugging_faces_variables_are_respected(
    server: LocalHub, home: Path, tmp_path: Path
) -> None:
    server.tokens = {"secret"}
    path = write_llama(tmp_path / "m-Q8_0.gguf", "Q8_0", **SHAPE)
    files = {path.name: HubFile(path)}
    server.add("org/m", files, gated=True, allowed_tokens=frozenset({"secret"}))
    variables = {"HF_ENDPOINT": server.url, "HF_TOKEN": "secret", "HF_HOME": str(tmp_path / "hf")}
    command = [sys.executable, "-P", "-m", "innkeeper", "pull", "org/m"]
    ran = subprocess.run(
        command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=120
    )
    assert ran.stdout == f"{home / 'models' / 'org' / 'm' / path.name}\n", ran.stderr


def test_pull_without_a_quantization_takes_the_best_that_fits_and_says_why(
    stocked: LocalHub, run: Any
) -> None:
    found = run("pull", "org/m", "--json")
    assert found.json["name"] == "Q8_0"
    assert "Q8_0: fits with" in found.err


def test_what_was_pulled_is_listed_identified_and_removed(
    stocked: LocalHub, run: Any, home: Path
) -> None:
    run("pull", "org/m:Q4_K_M")
    [row] = run("ls", "--json").json
    assert row["name"] == "org/m/m-Q4_K_M" and row["problem"] is None
    assert "org/m/m-Q4_K_M" in run("ls").out
    assert run("identify", "org/m:Q4_K_M", "--json").json["path"] == row["path"]
    asked = run("rm", "m-Q4_K_M")
    assert asked.code == 2 and "--yes" in asked.err
    assert run("rm", "m-Q4_K_M", "--yes").code == 0
    assert run("ls", "--json").json == []
    assert list((home / "models").iterdir()) == []


def test_models_are_found_by_words_and_author(stocked: LocalHub, run: Any) -> None:
    stocked.repos["org/m"].tags = ("safetensors",)
    stocked.add("other/m-GGUF", {"m.gguf": b"x"})
    assert [row["repo_id"] for row in run("search", "m", "--json").json] == ["other/m-GGUF"]
    every = run("search", "M", "--any-format", "--json").json
    assert {row["repo_id"] for row in every} == {"org/m", "other/m-GGUF"}
    assert "innkeeper fit other/m-GGUF" in run("search", "--author", "other").out
    assert "Fewer words" in run("search", "nothing", "--author", "other").err
    assert run("search").code == 2
    assert run("search", "m", "--offline").code == 1


def test_further_folders_are_used_where_they_are(
    run: Any, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made.gguf(tmp_path / "lmstudio" / "org" / "repo" / "m-Q8_0.gguf", "q8_0")
    monkeypatch.setenv("INNKEEPER_MODEL_FOLDERS", f"{tmp_path / 'lmstudio'},{tmp_path / 'gone'}")
    listed = run("ls", "--json")
    assert [model["path"] for model in listed.json] == [str(path)]
    assert f"no folder {tmp_path / 'gone'}" in listed.err
    assert run("identify", "org/repo/m-Q8_0", "--json").json["path"] == str(path)
    assert not list(home.rglob("*.gguf"))


def test_rm_asks_and_takes_no_for_an_answer(
    stocked: LocalHub, run: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("pull", "org/m:Q4_K_M")
    answer = io.StringIO("n\n")
    monkeypatch.setattr(answer, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", answer)
    found = run("rm", "m-Q4_K_M")
    assert found.code == 1 and "Delete" in found.err
    assert (home / "models/org/m/m-Q4_K_M.gguf").exists()


def test_identify_reads_a_repository_by_ranges(stocked: LocalHub, run: Any) -> None:
    found = run("identify", "org/m", "--json").json
    assert (found["format"], found["quant"], found["loader"]) == ("gguf", "Q4_K", "llama_cpp")
    assert found["path"] == f"{stocked.url}/org/m"
    shown = run("identify", "org/m:Q8_0").out
    assert "Q8_0" in shown and "llama.cpp" in shown


def test_identify_tells_of_a_repository_of_pickles(server: LocalHub, run: Any) -> None:
    server.add("org/p", {"pytorch_model.bin": b"p", "config.json": b"{}"})
    found = run("identify", "org/p", "--json").json
    assert (found["format"], found["is_safe"]) == ("pickle", False)
    assert server.gets() == []


def test_identify_tells_of_safetensors(server: LocalHub, run: Any, tmp_path: Path) -> None:
    folder = made.hf(tmp_path / "st")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    server.add("org/st", files)
    found = run("identify", "org/st", "--json").json
    assert (found["format"], found["loader"], found["name"]) == ("safetensors", "torch", "st")


FIT_FIELDS = {
    *("weights_bytes", "kv_bytes", "recurrent_bytes", "output_bytes", "compute_bytes"),
    *("repack_bytes", "work_bytes", "vocab_bytes", "process_bytes", "total_bytes"),
    *("devices", "verified", "fits", "reason"),
}


def test_fit_shows_every_quantization_of_a_repository(stocked: LocalHub, run: Any) -> None:
    rows = run("fit", "org/m", "--json").json
    assert [row["variant"] for row in rows] == ["Q4_K_M", "Q8_0"]
    assert all(row.keys() >= FIT_FIELDS for row in rows)
    assert [row["rank"] for row in rows] == [2, 1]
    shown = run("fit", "org/m").out
    assert "Q4_K_M" in shown and "innkeeper up org/m:Q8_0" in shown and "Free now" in shown


def test_fit_of_one_quantization_or_file_is_one_object(stocked: LocalHub, run: Any) -> None:
    arguments = ("--no-verify", "--json", "--ctx", "1024", "--kv-type", "q8_0,f16")
    remote = run("fit", "org/m:Q8_0", *arguments).json
    run("pull", "org/m:Q8_0")
    local = run("fit", "org/m/m-Q8_0", *arguments).json
    assert local.keys() >= FIT_FIELDS
    assert remote["exact"] and remote["num_ctx"] == 1024 and remote["kv_type_k"] == "q8_0"
    for field in FIT_FIELDS - {"devices", "reason"}:
        assert remote[field] == local[field], field


def test_fit_tells_what_safetensors_would_need(server: LocalHub, run: Any, tmp_path: Path) -> None:
    folder = made.hf(tmp_path / "st", vocab_size=1000, intermediate_size=512)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    server.add("org/st", files)
    here = run("fit", str(folder), "--json", "--ctx", "4096").json
    remote = run("fit", "org/st:safetensors", "--json", "--ctx", "4096").json
    for row in (here, remote, *run("fit", "org/st", "--json", "--ctx", "4096").json):
        assert row["fits"] is None and row["approximate"]
        kinds = ("weights", "kv", "compute", "process")
        assert row["total_bytes"] == sum(row[f"{kind}_bytes"] for kind in kinds)
        assert row["weights_bytes"] == here["weights_bytes"] > 0
        assert "in torch with 4,096 tokens" in row["reason"]


def test_fit_answers_for_what_up_would_load_with_the_same_flags(
    stocked: LocalHub, run: Any, home: Path
) -> None:
    run("pull", "org/m:Q8_0")
    flags = ("--ctx", "1024", "--parallel", "2", "--kv-type", "q8_0", "--no-mmap")
    path = home / "models" / "org" / "m" / "m-Q8_0.gguf"
    row = run("fit", str(path), *flags, "--no-verify", "--json").json
    given = {"ctx": "1024", "parallel": "2", "kv_type": "q8_0", "no_mmap": True}
    defaults = engine_defaults(load_settings(given, home), Home(home))
    here = probe()
    sized = choose_sizes(defaults.config(path, "m", None), Need(), here)
    for name in ("num_ctx", "num_pool", "kv_type_k", "kv_type_v", "num_gpu_layers"):
        assert row[name] == getattr(sized, name), name
    need = check_model(sized, lambda: here)
    assert need.ram_bytes == row["total_bytes"]


def test_fit_speaks_of_a_bare_context_where_it_is_asked_for_one(
    stocked: LocalHub, run: Any, tmp_path: Path
) -> None:
    path = tmp_path / "m-Q8_0.gguf"
    sizes = ("--ctx", "3000", "--parallel", "3", "--batch", "2048", "--ubatch", "256")
    more = ("--no-kv-unified", "--flash-attn", "--kv-type", "q8_0,q4_0", "--outputs", "0")
    place = ("--gpu-layers", "0", "--no-verify", "--json")
    row = run("fit", str(path), *sizes, *more, *place).json
    expected = estimate(
        gguf.read(path),
        ContextSettings(
            num_pool=3000,
            max_sequences=3,
            max_batch=2048,
            max_ubatch=256,
            kv_unified=False,
            flash_attention=True,
            kv_type_k="q8_0",
            kv_type_v="q4_0",
            repack_types=probe().repack_types,
        ),
    )
    found = {key: row[key] for key in expected.to_json()}
    assert found == expected.to_json()


def test_fit_counts_what_was_measured_to_be_fastest_here(
    stocked: LocalHub, run: Any, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("innkeeper.serving.tuning.MIN_WEIGHTS_BYTES", 1)
    here = replace(probe(), instruction_sets=frozenset({"avx2"}), gpus=())
    monkeypatch.setattr("innkeeper.cli.fit.machine", lambda _: here)
    path = tmp_path / "m-Q4_K_M.gguf"
    fit = ("fit", str(path), "--no-verify", "--json", "--ctx", "512")
    usual = run(*fit).json
    settings = [CpuSettings(repack=repack, num_threads=2) for repack in (True, False)]
    found = Tuned((Timing(settings[0], 0.01, 0.03), Timing(settings[1], 0.005, 0.02)))
    remember(Home(home).tuning, gguf.read(path), here, found)
    assert usual["repack_bytes"] > run(*fit).json["repack_bytes"] == 0
    bare = (*fit, "--outputs", "0")
    assert run(*bare).json["repack_bytes"] == usual["repack_bytes"]


LONG = ("--ctx", "300000", "--kv-type", "f16")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [((), "Q8_0"), (LONG, "Q4_K_M"), (("--ctx", "auto", "--gpu-layers", "auto"), "Q8_0")],
)
def test_pull_takes_what_fits_with_the_flags_of_up(
    stocked: LocalHub, run: Any, monkeypatch: pytest.MonkeyPatch, flags: list[str], expected: str
) -> None:
    ample = replace(probe(), available_ram_bytes=1 << 40, instruction_sets=frozenset(), gpus=())
    monkeypatch.setattr("innkeeper.cli.fit.machine", lambda _: ample)
    rows = run("fit", "org/m", *LONG, "--pool", "300000", "--json").json
    small, large = (row["devices"]["RAM"]["total_bytes"] for row in rows)
    tight = replace(ample, available_ram_bytes=(small + large) // 2 + RESERVE_RAM_BYTES)
    for command in ("pull", "fit"):
        monkeypatch.setattr(f"innkeeper.cli.{command}.machine", lambda _: tight)
    best = [row for row in run("fit", "org/m", "--json", *flags).json if row["rank"] == 1]
    assert [row["variant"] for row in best] == [expected]
    assert run("pull", "org/m", "--json", *flags).json["name"] == expected


def test_nothing_that_cannot_fit_is_downloaded_unless_it_is_named(
    stocked: LocalHub, run: Any, monkeypatch: pytest.MonkeyPatch, served: list[Path]
) -> None:
    tiny = replace(probe(), total_ram_bytes=1 << 20, available_ram_bytes=1 << 20, gpus=())
    monkeypatch.setattr("innkeeper.cli.pull.machine", lambda _: tiny)
    found = run("pull", "org/m")
    assert found.code == 1 and "the smallest is Q4_K_M" in found.err and "too little" in found.err
    for model in ("org/m", "org/m:Q8_0"):
        found = run("up", model)
        assert found.code == 1 and "too little" in found.err
    assert served == []
    assert all(seen.range for seen in stocked.gets())  # headers alone
    found = run("pull", "org/m:Q8_0")
    assert found.code == 0 and "Q8_0: the model needs" in found.err


def test_a_model_of_unknown_architecture_is_named_before_the_download(
    server: LocalHub, run: Any, tmp_path: Path
) -> None:
    path = write_llama(tmp_path / "m-Q8_0.gguf", "Q8_0", **SHAPE)
    path.write_bytes(path.read_bytes().replace(b"llama", b"brand"))
    server.add("org/new", {path.name: HubFile(path)})
    found = run("pull", "org/new:Q8_0")
    assert found.code == 0 and "unknown model architecture" in found.err
    rough = run("fit", "org/new:Q8_0", "--no-verify", "--json").json
    assert rough["approximate"] and "a dry run makes it exact" in rough["reasons"][-1]


def test_fit_counts_what_overrules_the_plan(stocked: LocalHub, run: Any) -> None:
    fit = ("fit", "org/m:Q8_0", "--no-verify", "--json", "--ctx", "512")
    usual = run(*fit).json
    read = run(*fit, "--no-mmap").json
    assert read["mapped_bytes"] == 0
    weights = read["unmapped_bytes"] + read["repack_bytes"]
    assert weights == read["weights_bytes"]
    assert read["total_bytes"] - usual["total_bytes"] == read["unmapped_bytes"]
    free = ("fit", "org/m:Q8_0", "--no-verify", "--json")
    scaled = run(*free, "--rope-scaling", "linear", "--rope-scale", "2").json
    assert scaled["num_ctx"] == 2 * run(*free).json["num_ctx"]
    assert run(*fit, "--tensor-split", "1,1").code == 2
    assert run(*fit, "--rope-scaling", "yarn").code == 2


def test_fit_without_a_name_has_the_models_here_and_the_catalogues(
    stocked: LocalHub, run: Any, tmp_path: Path
) -> None:
    run("pull", "org/m:Q8_0")
    entry = catalogue()[1][0]
    quant = entry.quants[0]
    path = write_llama(tmp_path / f"c-{quant}.gguf", quant, **SHAPE)
    stocked.add(entry.repo, {path.name: HubFile(path)})
    rows = run("fit", "--json").json
    assert [row["name"] for row in rows] == ["org/m/m-Q8_0", f"{entry.repo}:{quant}"]
    assert rows[1]["why"] == entry.why
    assert [row["name"] for row in run("fit", "--offline", "--json").json] == ["org/m/m-Q8_0"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("pull", "none/none"), 2, "no repository none/none"),
        (("pull", "nonsense"), 2, "org/name"),
        (("pull", "org/m:Q9"), 2, "it has Q4_K_M"),
        (("pull", "org/m", "--offline"), 1, "offline"),
        (("identify", "none.gguf"), 2, "none.gguf"),
        (("rm", "none", "--yes"), 2, "no model 'none'"),
        (("fit", "org/m:Q8_0", "--kv-type", "f17"), 2, "allowed: auto, f32"),
        (("fit", "none.gguf"), 2, "there is no file none.gguf, and no model"),
        (("identify", "./none"), 2, "there is no file ./none, and no model"),
        (("tune", "none.gguf"), 2, "there is no file none.gguf, and no model"),
    ],
)
def test_bad_input_is_one_line_and_an_exit_code(
    stocked: LocalHub, run: Any, arguments: tuple[str, ...], code: int, words: str
) -> None:
    found = run(*arguments)
    assert (found.code, found.out) == (code, "")
    assert found.err.startswith("innkeeper: ") and words in found.err
    assert found.err.count("\n") == 1


def test_a_hub_that_is_down_is_a_failure_that_names_a_way_out(stocked: LocalHub, run: Any) -> None:
    stocked.api_faults = [Fault(status=404)] * 1
    assert run("pull", "org/m").code == 2
    stocked.api_faults = [Fault(status=200, body=b"<html>")]
    found = run("pull", "org/m")
    assert found.code == 1 and "HF_ENDPOINT" in found.err


def test_a_model_is_obtained_from_the_library_or_else_from_the_hub(
    stocked: LocalHub, home: Path
) -> None:
    settings = load_settings({"yes": True}, home)
    path = home / "models" / "org" / "m" / "m-Q8_0.gguf"
    assert obtain(settings, "org/m:Q8_0") == path
    sent = stocked.sent()
    assert obtain(settings, "org/m") == obtain(settings, str(path)) == path
    assert obtain(settings, None) == path
    assert stocked.sent() == sent


def test_an_empty_home_gets_the_catalogues_best_for_this_machine(
    server: LocalHub, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for entry in catalogue()[1][:2]:
        files: dict[str, bytes | HubFile] = {}
        for quant in entry.quants:
            path = write_llama(tmp_path / entry.repo / f"m-{quant}.gguf", quant, **SHAPE)
            files[path.name] = HubFile(path)
        server.add(entry.repo, files)
    best = catalogue()[1][1]
    found = obtain(load_settings({"yes": True}, home), None)
    assert found == home / "models" / best.repo / f"m-{best.quants[0]}.gguf"
    told = capsys.readouterr().err
    assert best.why in told and "Others that fit" in told


def test_nothing_is_downloaded_that_nobody_agreed_to(
    server: LocalHub, home: Path, tmp_path: Path
) -> None:
    entry = catalogue()[1][0]
    path = write_llama(tmp_path / "m-Q8_0.gguf", "Q8_0", **SHAPE)
    server.add(entry.repo, {path.name: HubFile(path)})
    with pytest.raises(InvalidRequestError, match="--yes"):
        obtain(load_settings({}, home), None)
    assert not (home / "models").exists()
    assert server.log == []


def test_up_downloads_a_repositorys_model_once_and_serves_it(
    stocked: LocalHub, run: Any, home: Path, served: list[Path]
) -> None:
    assert run("org/m:Q8_0").code == 0
    sent = stocked.sent()
    assert run("up", "org/m:Q8_0", "--offline").code == 0
    assert served == [home / "models" / "org" / "m" / "m-Q8_0.gguf"] * 2
    assert stocked.sent() == sent


def test_up_without_a_model_serves_the_newest_of_the_home(
    stocked: LocalHub, run: Any, home: Path, served: list[Path]
) -> None:
    path = made.gguf(home / "models" / "mine.gguf")
    assert run("up", "--yes").code == 0
    assert served == [path] and stocked.log == []


def test_up_in_an_empty_home_gets_the_best_that_fits_if_that_is_wished(
    server: LocalHub, run: Any, home: Path, tmp_path: Path, served: list[Path]
) -> None:
    entry = catalogue()[1][0]
    path = write_llama(tmp_path / "m-Q8_0.gguf", "Q8_0", **SHAPE)
    server.add(entry.repo, {path.name: HubFile(path)})
    assert run("up", "--yes").code == 0
    assert served == [home / "models" / entry.repo / path.name]


@pytest.mark.parametrize("arguments", [("--yes", "--offline"), (), ("--demo",)])
def test_up_in_an_empty_home_serves_the_built_in_model_where_nothing_may_be_sent(
    server: LocalHub, run: Any, served: list[Path], arguments: tuple[str, ...]
) -> None:
    assert run("up", *arguments).code == 0
    assert served == [demo.MODEL] and server.log == []


def test_up_serves_the_built_in_model_if_the_hub_cannot_be_reached(
    server: LocalHub, run: Any, served: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    found = run("up", "--yes")
    assert served == [demo.MODEL] and "cannot be reached" in found.err


def test_up_refuses_what_cannot_be_loaded_before_the_download(
    server: LocalHub, run: Any, tmp_path: Path, served: list[Path]
) -> None:
    folder = made.hf(tmp_path / "st")
    server.add("org/st", {path.name: path.read_bytes() for path in folder.iterdir()})
    found = run("up", "org/st")
    assert found.code == 2 and "as GGUF" in found.err
    assert server.gets() == [] and served == []


def test_up_of_a_name_that_is_nowhere_is_bad_input(server: LocalHub, run: Any) -> None:
    assert "no repository none/none" in run("up", "none/none").err
    missing = run("up", "none.gguf")
    assert missing.code == 2 and "there is no file none.gguf" in missing.err


def test_an_interrupted_pull_says_how_to_go_on(
    stocked: LocalHub, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("innkeeper.hub.part.PartFile.write", interrupt)
    found = run("pull", "org/m:Q8_0")
    assert found.code == 130 and "goes on where it stopped" in found.err
