"""``innkeeper fit``: what fits this computer, before anything is downloaded or loaded."""

import json as json_text
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from innkeeper.cli.ls import open_library
from innkeeper.cli.options import Options, with_settings
from innkeeper.cli.planning import PLANNED, wishes
from innkeeper.cli.pull import machine, open_hub
from innkeeper.errors import InnkeeperError, InvalidRequestError, NotFoundError
from innkeeper.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from innkeeper.config import Settings
    from innkeeper.formats.source import Source
    from innkeeper.hub.fit import RepoRow
    from innkeeper.library import Choice
    from innkeeper.planner.fit import FitRow
    from innkeeper.planner.hardware import Hardware
    from innkeeper.planner.plan import Verify
    from innkeeper.planner.wishes import Wishes

_BARE = "A bare context of llama.cpp's (--parallel is its n_seq_max then)"
_KV_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")


@with_settings("home", "offline", "model_folders", *(set(PLANNED) - {"kv_type"}))
def fit(
    options: Options,
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="PATH|REPO[:QUANT]",
            help="A file, a name that innkeeper ls shows, or a repository. Without it: your models,"
            " and the catalogue's.",
            show_default=False,
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    kv_type: Annotated[
        str | None, typer.Option(metavar="K[,V]", help="Number types of keys and values.")
    ] = None,
    ubatch: Annotated[int | None, typer.Option(min=1, max=1 << 16, help="Tokens a step.")] = None,
    flash_attn: Annotated[
        bool | None, typer.Option("--flash-attn/--no-flash-attn", help="Flash attention.")
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, max=1 << 16, help="Tokens a batch.", rich_help_panel=_BARE),
    ] = None,
    outputs: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=1 << 16,
            help="Rows with logits; 0 = all of a batch.",
            rich_help_panel=_BARE,
        ),
    ] = None,
    kv_unified: Annotated[
        bool | None,
        typer.Option(
            "--kv-unified/--no-kv-unified",
            help="One cache for all sequences.",
            rich_help_panel=_BARE,
        ),
    ] = None,
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Trust the header; no dry run of llama.cpp.")
    ] = False,
) -> None:
    """Show what fits this computer: memory to the byte, context, expected speed.

    It answers for what innkeeper up would load with the same flags.
    """
    from innkeeper.planner.verify import verify

    key_type, value_type = _kv_types(kv_type)
    settings = options.settings()

    def overruled(asked: "Wishes") -> "Wishes":
        is_bare = (batch, outputs, kv_unified) != (None, None, None)
        if is_bare:
            asked = wishes(settings)  # whatever was measured to be fastest
        flash = asked.flash_attention if flash_attn is None else flash_attn
        asked = replace(asked, max_ubatch=ubatch or asked.max_ubatch, flash_attention=flash)
        if key_type:
            asked = replace(asked, kv_type_k=key_type, kv_type_v=value_type)
        return _bare(asked, batch, outputs, kv_unified is not False) if is_bare else asked

    found = _Asked(settings, machine(settings), overruled, None if no_verify else verify)
    rows = found.everything() if target is None else found.one(target)
    if json:
        print(json_text.dumps(rows, indent=2))
    else:
        _show(rows, found.hardware)


def _bare(asked: "Wishes", batch: int | None, outputs: int | None, unified: bool) -> "Wishes":
    """``asked`` of a context as llama.cpp makes it, with nothing beside it for kept chats."""
    return replace(
        asked,
        num_ids=asked.max_sequences,
        num_pool=asked.num_pool or asked.num_ctx,
        kv_type_k=asked.kv_type_k or "f16",
        kv_type_v=asked.kv_type_v or "f16",
        max_batch=batch,
        num_outputs=outputs,
        kv_unified=unified,
    )


class _Asked:
    """What one call of ``fit`` looks at. Rows are JSON objects already."""

    def __init__(
        self,
        settings: "Settings",
        hardware: "Hardware",
        overruled: "Callable[[Wishes], Wishes]",
        verify: "Verify | None",
    ) -> None:
        self.settings = settings
        self.hardware = hardware
        self.overruled = overruled
        self.wishes = overruled(wishes(settings))
        self.verify = verify

    def one(self, target: str) -> dict[str, Any] | list[dict[str, Any]]:
        """One object for a file or a quantization, a list for a repository."""
        from innkeeper.hub.address import looks_remote
        from innkeeper.library import resolve

        path = Path(target).expanduser()
        if path.exists():
            return self._local(path, path.name)
        try:
            return self._local(resolve(target, open_library(self.settings)), target)
        except (NotFoundError, InvalidRequestError):
            if not looks_remote(target):
                raise
        return self._repo(target)

    def everything(self) -> list[dict[str, Any]]:
        """The models here, then the catalogue's that fit, best first."""
        rows: list[dict[str, Any]] = []
        for model in open_library(self.settings).models():
            if model.identity is not None and model.identity.format == "gguf" and not model.problem:
                try:
                    rows.append(self._local(model.path, model.name, is_quick=True))
                except InnkeeperError as error:
                    rows.append({"name": model.name, "fits": None, "reason": str(error)})
        if self.settings.offline:
            return rows
        try:
            best, others = choose_from_catalogue(self.settings, self.hardware, self.wishes)
        except InnkeeperError as error:
            print(f"The catalogue is left out: {error}", file=sys.stderr)
            return rows
        return rows + [_catalogue_row(choice) for choice in (best, *others)]

    def _local(self, path: Path, name: str, *, is_quick: bool = False) -> dict[str, Any]:
        from innkeeper.formats import gguf
        from innkeeper.formats.source import LocalSource
        from innkeeper.planner.fit import fit as fit_header

        file = _gguf_in(path)
        if file is None:
            return {**_torch_row(LocalSource(path), name, self.wishes), "path": str(path)}
        header = gguf.read_model(file).header
        verify = None if is_quick else self.verify
        asked = self.overruled(wishes(self.settings, file, self.hardware))
        row = fit_header(header, self.hardware, asked, name=name, verify=verify)
        return {**row.to_json(), "exact": True, "path": str(path)}

    def _repo(self, target: str) -> dict[str, Any] | list[dict[str, Any]]:
        from innkeeper.hub.address import parse_address
        from innkeeper.hub.fit import RepoFit
        from innkeeper.hub.listing import list_repo
        from innkeeper.hub.source import HubSource
        from innkeeper.hub.variants import choose_variant, variants

        address = parse_address(target)
        hub = open_hub(self.settings)
        listing = list_repo(hub, address.repo_id)
        source = HubSource(hub, listing)
        table = RepoFit(source, variants(listing), self.hardware, self.wishes, self.verify)
        if address.wanted is None:
            rows = table.rows()
            places = _places([row.fit for row in rows if row.fit is not None])
            return [
                {**self._row_json(row, source), "rank": places.get(id(row.fit))} for row in rows
            ]
        return self._row_json(table.exact(choose_variant(listing, address.wanted)), source)

    def _row_json(self, row: "RepoRow", source: "Source") -> dict[str, Any]:
        if row.variant.kind != "safetensors" or row.variant.missing:
            return _row_json(row)
        name = f"{row.variant.repo_id}:{row.variant.name}"
        return {**_row_json(row), **_torch_row(source, name, self.wishes)}


def _places(rows: "list[FitRow]") -> dict[int, int]:
    """Id of a row -> 1 for the one that ``pull`` would take, 2 for the next best, and so on."""
    from innkeeper.planner.fit import rank

    fitting = [row for row in rank(rows) if row.fits]
    return {id(row): place for place, row in enumerate(fitting, start=1)}


def choose_from_catalogue(
    settings: "Settings", hardware: "Hardware", wishes: "Wishes"
) -> "tuple[Choice, list[Choice]]":
    """The catalogue's best for this machine, which its own header confirms, and the next best.

    Raises: NotEnoughMemoryError if nothing fits; HubError.
    """
    from innkeeper.hub.fit import RepoFit, RepoRow
    from innkeeper.hub.listing import list_repo
    from innkeeper.hub.source import HubSource
    from innkeeper.hub.variants import variants
    from innkeeper.library import CatalogueEntry, catalogue, choose
    from innkeeper.planner.verify import verify_guess

    hub = open_hub(settings)
    tables: dict[str, tuple[RepoFit, list[RepoRow]]] = {}

    def rows_of(entry: CatalogueEntry) -> "list[FitRow]":
        listing = list_repo(hub, entry.repo)
        source = HubSource(hub, listing)
        table = RepoFit(source, variants(listing), hardware, wishes, verify_guess)
        tables[entry.repo] = (table, table.rows())
        return [row.fit for row in tables[entry.repo][1] if row.fit is not None]

    best, others = choose(catalogue()[1], rows_of)
    for choice in (best, *others):
        table, rows = tables[choice.entry.repo]
        variant = next(row.variant for row in rows if row.fit is choice.row)
        exact = table.exact(variant).fit
        if exact is not None and exact.fits:
            sure = msgspec.structs.replace(choice, row=exact)
            return sure, [other for other in (best, *others) if other is not choice]
    return best, others


def _kv_types(text: str | None) -> tuple[str | None, str | None]:
    """(of keys, of values); None = chosen."""
    if text is None or text == "auto":
        return None, None
    key, comma, value = text.lower().partition(",")
    for kind in (key, value) if comma else (key,):
        if kind not in _KV_TYPES:
            raise InvalidRequestError(
                f"--kv-type {text[:40]} is not allowed",
                hint=f"allowed: auto, {', '.join(_KV_TYPES)}",
            )
    return key, value if comma else key


def _gguf_in(path: Path) -> Path | None:
    """The GGUF that ``path`` is or has; None for a folder of safetensors."""
    if not path.is_dir():
        return path
    files = sorted(path.glob("*.gguf"))
    if not files and not any(path.glob("*.safetensors")):
        raise InvalidRequestError(f"{path} has no model in it", hint="name a model's folder")
    return files[0] if files else None


def _torch_row(source: "Source", name: str, wishes: "Wishes") -> dict[str, Any]:
    """What a set of safetensors would need in torch, which is an approximation."""
    from innkeeper.formats.hf_config import context_length
    from innkeeper.formats.identify_hf import read_weights
    from innkeeper.planner.candidates import AUTO_CTX
    from innkeeper.planner.torch_estimate import TorchSettings, estimate_torch

    weights, config = read_weights(source)
    num_ctx = wishes.num_ctx or min(context_length(config)[0] or AUTO_CTX, AUTO_CTX)
    needs = estimate_torch(weights, config, TorchSettings(num_ctx=num_ctx))
    return {
        "name": name,
        "quant": None,
        "fits": None,
        "exact": False,
        "approximate": True,
        "num_ctx": num_ctx,
        "weights_bytes": needs.weights_bytes,
        "kv_bytes": needs.kv_bytes,
        "compute_bytes": needs.activation_bytes,
        "process_bytes": needs.process_bytes,
        "total_bytes": needs.total_bytes,
        "reason": f"safetensors need about {format_bytes(needs.total_bytes)} in torch with"
        f" {num_ctx:,} tokens of context; they cannot be loaded here yet",
    }


def _row_json(row: Any) -> dict[str, Any]:
    variant = row.variant
    about = {
        "repo": variant.repo_id,
        "variant": variant.name,
        "size_bytes": variant.size_bytes,
        "files": [file.name for file in variant.files],
        "exact": row.is_exact,
    }
    if row.fit is not None:
        return {**row.fit.to_json(), **about}
    reason = "parts of it are missing" if variant.missing else f"{variant.kind}: not known yet"
    name = f"{variant.repo_id}:{variant.name}"
    return {"name": name, "quant": variant.quant, "fits": None, "reason": reason, **about}


def _catalogue_row(choice: "Choice") -> dict[str, Any]:
    return {
        **choice.row.to_json(),
        "exact": False,
        "repo": choice.entry.repo,
        "why": choice.entry.why,
    }


def _show(found: dict[str, Any] | list[dict[str, Any]], hardware: "Hardware") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    rows = found if isinstance(found, list) else [found]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("Model", "Quant", "Weights", "Other memory", "Context", "Tokens/s", "Fits"):
        table.add_column(
            column, justify="left" if column in ("Model", "Quant", "Fits") else "right"
        )
    for row in rows:
        table.add_row(*_cells(row))
    console.print(table if rows else "There is no model here yet; innkeeper search finds some.")
    if isinstance(found, dict):
        console.print(Text(found["reason"]))
        for reason in found.get("reasons", ()):
            if reason != found["reason"]:
                console.print(Text(f"- {reason}", style="dim"))
    best = next((row for row in rows if row.get("rank") == 1), None)
    if best is not None:
        console.print(Text(f"innkeeper up {best['name']} downloads and serves the best of them."))
    free = format_bytes(hardware.available_ram_bytes)
    gpus = "".join(f", {format_bytes(g.free_bytes)} on {g.name}" for g in hardware.gpus)
    console.print(Text(f"Free now: {free} of RAM{gpus}", style="dim"))


def _cells(row: dict[str, Any]) -> list[Any]:
    from rich.text import Text

    name = Text(row["name"])
    if row["fits"] is None:
        return [name, row.get("quant") or "", "", "", "", "", Text(row["reason"], style="dim")]
    about = "" if row["exact"] else "about "
    yes = "best" if row.get("rank") == 1 else "yes"
    word = Text(yes, style="green") if row["fits"] else Text("no", style="red")
    return [
        name,
        row["quant"],
        about + format_bytes(row["weights_bytes"]),
        format_bytes(row["total_bytes"]),
        f"{row['num_ctx']:,}",
        f"{row['tokens_per_second']:.0f}",
        word,
    ]
