"""What of a repository fits this machine, before anything of it is downloaded.

The quantizations of one model share its shape. So one header, read by a range, tells of all rows
how large their context and buffers are, and the listing how large their weights are. The row that
somebody looks at is made exact from its own header.
"""

from dataclasses import replace

import msgspec
from msgspec import Struct

from innkeeper.errors import CorruptModelError, NotEnoughMemoryError, NotFoundError
from innkeeper.formats.ggml_types import TYPES_BY_NAME
from innkeeper.formats.gguf import merge
from innkeeper.formats.gguf_header import GgufHeader, TensorInfo
from innkeeper.formats.quant_names import base_type
from innkeeper.formats.source import Source, read_gguf_header
from innkeeper.hub.variants import FAVOURITES, Variant
from innkeeper.planner.fit import FitRow, fit, rank_key
from innkeeper.planner.hardware import Hardware
from innkeeper.planner.plan import Verify
from innkeeper.planner.wishes import Wishes


class RepoRow(Struct, frozen=True):
    """One variant and what it would need here; None if that cannot be told for it."""

    variant: Variant
    fit: FitRow | None
    is_exact: bool = False
    """From its own header; otherwise from another's, by the sizes of the files."""


class RepoFit:
    """The rows of one repository. ``verify`` has the last word on exact rows."""

    def __init__(
        self,
        source: Source,
        offered: list[Variant],
        hardware: Hardware,
        wishes: Wishes,
        verify: Verify | None = None,
    ) -> None:
        self._source = source
        self._offered = [variant for variant in offered if variant.is_safe]
        self._hardware = hardware
        self._wishes = wishes
        self._verify = verify

    def rows(self) -> list[RepoRow]:
        """One row for each variant, smallest first; costs one header.

        Raises: NotFoundError without any model; HubError, ModelFileError of the one header.
        """
        ggufs = [variant for variant in self._offered if _is_readable(variant)]
        if not self._offered:
            raise NotFoundError("there is no model in it that can be used", hint="look for a GGUF")
        if not ggufs:
            return [RepoRow(variant, None) for variant in self._offered]
        reference = min(ggufs, key=_cost)
        header = self.header(reference)
        return [self._row(variant, header, reference) for variant in self._offered]

    def best(self) -> RepoRow | None:
        """The best that fits, which its own header confirms; None if nothing can be told of any.

        Raises: NotEnoughMemoryError with the smallest need if nothing fits; as ``rows``.
        """
        rows = [(row.fit, row.variant) for row in self.rows() if row.fit is not None]
        for guessed, variant in sorted(rows, key=lambda row: rank_key(row[0])):
            exact = self.exact(variant) if guessed.fits else RepoRow(variant, None)
            if exact.fit is not None and exact.fit.fits:
                return exact
        if not rows:
            return None
        least, variant = min(rows, key=lambda row: row[0].full_bytes)
        raise NotEnoughMemoryError(
            f"nothing of {variant.repo_id} fits here; the smallest is {variant.name}: "
            f"{least.reason}",
            hint=f"look for a smaller model, or name what to download: {least.name}",
        )

    def exact(self, variant: Variant) -> RepoRow:
        """The row of ``variant`` from its own header. Raises: HubError, ModelFileError."""
        if not _is_readable(variant):
            return RepoRow(variant, None)
        header = self.header(variant)
        return RepoRow(variant, self._fit(header, variant, self._verify), is_exact=True)

    def header(self, variant: Variant) -> GgufHeader:
        """The header of all its parts, read by ranges. Raises: HubError, ModelFileError."""
        return merge([read_gguf_header(self._source, file.name) for file in variant.files])

    def _row(self, variant: Variant, header: GgufHeader, reference: Variant) -> RepoRow:
        if not _is_readable(variant):
            return RepoRow(variant, None)
        if variant == reference:
            return RepoRow(variant, self._fit(header, variant, None), is_exact=True)
        try:
            row = self._fit(scaled(header, variant), variant, None)
        except CorruptModelError:  # not the same model: its own header will tell
            return RepoRow(variant, None)
        row = msgspec.structs.replace(row, quant=variant.quant or row.quant, approximate=True)
        return RepoRow(variant, row)

    def _fit(self, header: GgufHeader, variant: Variant, verify: Verify | None) -> FitRow:
        name = f"{variant.repo_id}:{variant.name}"
        row = fit(header, self._hardware, self._wishes, name=name, verify=verify)
        if variant.quant and base_type(variant.quant) == base_type(row.quant):
            row = msgspec.structs.replace(row, quant=variant.quant)  # tells mixes apart
        return row


def scaled(header: GgufHeader, variant: Variant) -> GgufHeader:
    """``header`` as that of ``variant``: the same shape, its matrices as large as its files say.

    Raises: CorruptModelError if the file is too small to hold the same model.
    """
    kind = TYPES_BY_NAME.get(base_type(variant.quant or "").lower())
    matrices = [tensor for tensor in header.tensors if len(tensor.shape) > 1]
    vector_bytes = header.tensor_bytes - sum(tensor.num_bytes for tensor in matrices)
    left = variant.size_bytes - header.header_bytes - vector_bytes
    if left <= 0 or not matrices:
        raise CorruptModelError(
            f"{variant.main.name} is too small for a model of this shape", hint="choose another"
        )

    def natural(tensor: TensorInfo) -> int:
        return kind.row_bytes(tensor.num_weights) if kind else tensor.num_bytes

    ratio = left / sum(natural(tensor) for tensor in matrices)

    def resized(tensor: TensorInfo) -> TensorInfo:
        if len(tensor.shape) < 2:
            return tensor
        size = int(natural(tensor) * ratio)
        return tensor._replace(num_bytes=size, type=kind or tensor.type)

    tensors = tuple(resized(tensor) for tensor in header.tensors)
    return replace(header, file_bytes=variant.size_bytes, tensors=tensors)


def _is_readable(variant: Variant) -> bool:
    return variant.kind == "gguf" and not variant.missing


def _cost(variant: Variant) -> tuple[int, int, int]:
    """Which header to read for all: of one file, then of the quantization people take."""
    liked = FAVOURITES.index(variant.quant) if variant.quant in FAVOURITES else len(FAVOURITES)
    return (len(variant.files), liked, variant.size_bytes)
