"""How far are memory estimates from the truth, ours and the common calculators'?

    python -m benchmarks.fit_error table TRUTH.csv FOLDER    errors against measured contexts
    python -m benchmarks.fit_error truth FOLDER OUT.csv      measure anew (llama.cpp's dry run)
    python -m benchmarks.fit_error resident MODEL.gguf       RSS of a run that fills the context

FOLDER holds the models of the table as NAME.gguf; headers with holes for data do. The calculators
get the exact size of the weights, so that only what they compute themselves counts.
"""

import argparse
import csv
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

from benchmarks.report import Table
from innkeeper.core import EngineConfig
from innkeeper.formats import gguf
from innkeeper.formats.gguf_header import GgufHeader
from innkeeper.planner.estimate import ContextSettings, estimate
from innkeeper.planner.fit import fit
from innkeeper.planner.hardware import X86_REPACK_TYPES, probe
from innkeeper.planner.shape import ModelShape, read_shape
from innkeeper.planner.verify import dry_run, verify
from innkeeper.serving.fit import wishes_of
from innkeeper.units import MIB, format_bytes

_COLUMNS = (
    *("model", "n_ctx", "n_batch", "n_ubatch", "n_seq_max", "kv_unified", "flash_attn", "type_k"),
    *("type_v", "n_outputs_max", "repack", "model_bytes", "context_bytes", "compute_bytes"),
)
_DEFAULT_UBATCH = 512


class Guess(NamedTuple):
    """What one calculator says, in bytes; None = it has no such number."""

    kv: float | None
    total: float | None


class Case(NamedTuple):
    """One measured context."""

    header: GgufHeader
    shape: ModelShape
    settings: ContextSettings
    weights_bytes: int
    context_bytes: int
    compute_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.context_bytes + self.compute_bytes


Calculator = Callable[[Case], Guess]


def ours(case: Case) -> Guess:
    """The header alone, without the margin."""
    found = estimate(case.header, case.settings)
    kv = found.kv_bytes + found.recurrent_bytes
    return Guess(kv, found.weights_bytes + kv + found.compute_bytes)


def nyx(case: Case) -> Guess:
    """Nyx's calculator: heads of hidden/heads, whole bits per type, compute without flash
    attention, every layer over the whole context."""
    shape, ctx = case.shape, case.settings.num_pool
    if not shape.num_heads:
        return Guess(None, None)
    kv = 2 * ctx * len(shape.layers) * _nyx_kv_width(shape) * _whole_bits(case.settings) / 8
    compute = (ctx / 1024 * 2 + 0.75) * shape.num_heads * MIB
    batch = _DEFAULT_UBATCH
    inputs = batch * 3 + shape.width * batch + ctx * batch + ctx
    return Guess(kv, case.weights_bytes + kv + compute + inputs)


def text_generation_webui(case: Case) -> Guess:
    """Its regression over five features, fitted to measurements of llama.cpp on GPUs."""
    shape, settings = case.shape, case.settings
    if not shape.num_heads:
        return Guess(None, None)
    layers, bits = len(shape.layers), _whole_bits(settings)
    per_layer = case.weights_bytes / MIB / layers
    cache = _num_key_heads(shape) * bits * settings.num_pool
    offset = 50.77817218646521 * shape.width / settings.num_pool // 1 + 9.987899908205632
    slope = per_layer - 17.99552795246051 + 3.148552680382576e-05 * cache
    found = slope * (layers + max(0.9690636483914102, bits - offset)) + 1516.522943869404
    return Guess(None, found * MIB)


def gguf_parser(case: Case) -> Guess:
    """gguf-parser-go's cache: its own reading of compressed, sliding and hybrid attention."""
    shape, settings = case.shape, case.settings
    row_bytes = {"f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}
    row_k, row_v = row_bytes[settings.kv_type_k], row_bytes[settings.kv_type_v]
    total = 0.0
    for layer in shape.layers:
        cells = settings.num_pool
        key, value = layer.key_width, layer.value_width
        if shape.is_mla:
            key, value = 192, 128
        if layer.is_recurrent:  # taken for attention
            key = max(other.key_width for other in shape.layers)
            value = max(other.value_width for other in shape.layers)
        if layer.is_sliding and shape.architecture != "gpt-oss":
            cells = min(cells, shape.sliding_window + settings.max_batch)
        total += cells * (key * row_k + value * row_v)
    return Guess(total or None, None)


CALCULATORS: dict[str, Calculator] = {
    "innkeeper (header)": ours,
    "gguf-parser-go": gguf_parser,
    "text-generation-webui": text_generation_webui,
    "Nyx": nyx,
}


def _nyx_kv_width(shape: ModelShape) -> float:
    return shape.width / shape.num_heads * _num_key_heads(shape)


def _num_key_heads(shape: ModelShape) -> int:
    widest = max(layer.key_width for layer in shape.layers)
    return max(1, widest // max(1, shape.key_head))


def _whole_bits(settings: ContextSettings) -> int:
    return {"f16": 16, "q8_0": 8, "q4_0": 4}[settings.kv_type_k]


def read_cases(truth: Path, folder: Path) -> Iterator[Case]:
    """The rows at the default batch with one sequence and all outputs, as calculators assume."""
    headers: dict[str, GgufHeader] = {}
    with truth.open() as file:
        for row in csv.DictReader(file):
            name = row["model"]
            if name not in headers:
                headers[name] = gguf.read(folder / f"{name}.gguf")
            settings = settings_of(row)
            if settings.max_ubatch != _DEFAULT_UBATCH or settings.max_sequences != 1:
                continue
            if settings.num_outputs or not settings.repack_types:
                continue
            sizes = (int(row[f"{kind}_bytes"]) for kind in ("model", "context", "compute"))
            yield Case(headers[name], read_shape(headers[name]), settings, *sizes)


def settings_of(row: dict[str, str]) -> ContextSettings:
    """Of one row of the truth."""
    return ContextSettings(
        num_pool=int(row["n_ctx"]),
        max_sequences=int(row["n_seq_max"]),
        kv_type_k=row["type_k"],
        kv_type_v=row["type_v"],
        max_batch=int(row["n_batch"]),
        max_ubatch=int(row["n_ubatch"]),
        num_outputs=int(row["n_outputs_max"]),
        flash_attention=row["flash_attn"] == "1",
        kv_unified=row["kv_unified"] == "1",
        repack_types=X86_REPACK_TYPES if row["repack"] == "1" else frozenset(),
    )


def table(truth: Path, folder: Path) -> str:
    """|error| of context and total, median / p90 / max, over all cases."""
    cases = list(read_cases(truth, folder))
    rows = Table("calculator", "context", "total", "cases")
    for name, calculate in CALCULATORS.items():
        guesses = [(case, calculate(case)) for case in cases]
        kv = [abs(g.kv / c.context_bytes - 1) for c, g in guesses if g.kv is not None]
        total = [abs(g.total / c.total_bytes - 1) for c, g in guesses if g.total is not None]
        rows.add(name, _spread(kv), _spread(total), str(max(len(kv), len(total))))
    return rows.markdown("|error|: median / p90 / max")


def _spread(errors: list[float]) -> str:
    if not errors:
        return "-"
    errors = sorted(errors)
    p90 = errors[min(len(errors) - 1, int(0.9 * len(errors)))]
    return f"{statistics.median(errors):.2%} / {p90:.2%} / {errors[-1]:.2%}"


def measure_truth(folder: Path, out: Path) -> None:
    """Dry runs of every model of ``folder`` over a grid; one CSV row each.

    Weights are as the header adds up: a dry run does not tell them.
    """
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        for path in sorted(folder.glob("*.gguf")):
            header = gguf.read(path)
            grid = list(_grid())
            for settings, found in zip(grid, dry_run(header, grid), strict=True):
                if found.error is None:
                    context = found.kv_bytes + found.recurrent_bytes
                    compute = sum(found.compute_bytes.values())
                    writer.writerow(_truth_row(path.stem, header, settings, context, compute))


def _grid() -> Iterator[ContextSettings]:
    kinds = (("f16", True), ("q8_0", True), ("q4_0", True), ("f16", False))
    batches, sequences = (128, 512, 2048), ((1, True), (4, True), (4, False))
    for num_pool, ubatch, (count, unified), (kind, flash) in product(
        (2048, 8192, 32768), batches, sequences, kinds
    ):
        for num_outputs in (0, count):
            yield ContextSettings(
                num_pool=num_pool,
                max_sequences=count,
                kv_unified=unified,
                max_ubatch=ubatch,
                kv_type_k=kind,
                kv_type_v=kind,
                flash_attention=flash,
                num_outputs=num_outputs,
                repack_types=probe().repack_types,
            )


def _truth_row(
    name: str, header: GgufHeader, settings: ContextSettings, context: int, compute: int
) -> dict[str, str | int]:
    return {
        "model": name,
        "n_ctx": settings.num_pool,
        "n_batch": settings.max_batch,
        "n_ubatch": settings.max_ubatch,
        "n_seq_max": settings.max_sequences,
        "kv_unified": int(settings.kv_unified),
        "flash_attn": int(settings.flash_attention),
        "type_k": settings.kv_type_k,
        "type_v": settings.kv_type_v,
        "n_outputs_max": settings.num_outputs,
        "repack": int(bool(settings.repack_types)),
        "model_bytes": estimate(header, settings).weights_bytes,
        "context_bytes": context,
        "compute_bytes": compute,
    }


def resident(model: Path, num_ctx: int) -> str:
    """``total_bytes`` of ``innkeeper fit`` beside the anonymous memory of a child that loads the
    model with the same settings and fills its context."""
    header, machine = gguf.read_model(model).header, probe()
    rows = Table("flash attention", "predicted", "measured", "error")
    for flash in (False, True):
        wishes = wishes_of(_config(model, num_ctx, flash=flash))
        predicted = fit(header, machine, wishes, name=model.stem, verify=verify).needs.total_bytes
        command = [sys.executable, "-m", "benchmarks.fit_error", "fill", str(model)]
        command += [str(num_ctx), str(int(flash))]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        measured = int(json.loads(run.stdout)["anonymous_bytes"])
        error = f"{predicted / measured - 1:+.2%}"
        rows.add("on" if flash else "off", format_bytes(predicted), format_bytes(measured), error)
    return rows.markdown(f"context {num_ctx:,}, as innkeeper up sets it up")


def _config(model: Path, num_ctx: int, *, flash: bool) -> EngineConfig:
    return EngineConfig(
        backend="llama_cpp",
        path=str(model),
        name=model.stem,
        num_ctx=num_ctx,
        num_pool=num_ctx,
        num_gpu_layers=0,
        flash_attention=flash,
    )


def fill(model: Path, num_ctx: int, *, flash: bool) -> None:
    """The child: the engine's own runner, loaded and fed until its context is full."""
    from innkeeper.backends.llama_cpp.load import load
    from innkeeper.engine import child  # noqa: F401  (what an engine process imports)
    from innkeeper.engine.runner import Row

    runner = load(_config(model, num_ctx, flash=flash), lambda _fraction: None)
    for start in range(0, num_ctx, runner.max_rows):
        end = min(start + runner.max_rows, num_ctx)
        runner.forward([Row(300 + at % 97, at, 0, at == end - 1) for at in range(start, end)])
    status = Path("/proc/self/status").read_text()
    found = re.search(r"RssAnon:\s+(\d+)", status)
    print(json.dumps({"anonymous_bytes": int(found[1]) * 1024 if found else 0}))


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    actions = parser.add_subparsers(dest="action", required=True)
    for action, files in (("table", ("truth", "folder")), ("truth", ("folder", "out"))):
        sub = actions.add_parser(action)
        for name in files:
            sub.add_argument(name, type=Path)
    for action in ("resident", "fill"):
        sub = actions.add_parser(action)
        sub.add_argument("model", type=Path)
        sub.add_argument("num_ctx", type=int, nargs="?", default=2048)
        sub.add_argument("flash", type=int, nargs="?", default=0)
    args = parser.parse_args(list(arguments) if arguments is not None else None)
    if args.action == "table":
        print(table(args.truth, args.folder))
    elif args.action == "truth":
        measure_truth(args.folder, args.out)
    elif args.action == "resident":
        print(resident(args.model, args.num_ctx))
    else:
        fill(args.model, args.num_ctx, flash=bool(args.flash))


if __name__ == "__main__":
    main()
