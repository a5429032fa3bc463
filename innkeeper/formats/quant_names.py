"""What a quantization is called, what a file's name claims, and what its tensors are in fact."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from innkeeper.formats.gguf_header import GgufHeader, TensorInfo

FILE_TYPES = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4",
    39: "NVFP4",
    40: "Q1_0",
    41: "Q2_0",
}
"""``general.file_type`` -> name. Source: ``llama_ftype`` in llama.h."""

_NAME_CLAIM = re.compile(
    r"(?<![A-Za-z0-9])"
    r"(I?Q[1-8]_(?:K(?:_(?:XXL|XL|XS|S|M|L|P))?|NL|XXS|XS|S|M|[01])|TQ[12]_0|MXFP4|NVFP4"
    r"|BF16|FP16|F16|FP32|F32|FP8|Q[2-8])"
    r"(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_CONTEXT_CLAIM = re.compile(r"(?<![A-Za-z0-9.])(\d{1,4})[kK](?![A-Za-z0-9])")
_SIZE_CLAIM = re.compile(
    r"(?<![A-Za-z0-9.])(?:(\d{1,2})x)?(\d{1,4}(?:\.\d{1,2})?)[bB](?![A-Za-z0-9])"
)
_ALIASES = {"FP16": "F16", "FP32": "F32"}


def claimed_quant(name: str) -> str | None:
    """The quantization that a file name claims (``Q4_K_M``, ``IQ3_XXS``, ``F16``), the last one."""
    claims = _NAME_CLAIM.findall(name.removesuffix(".gguf").replace("-", " "))
    if not claims:
        return None
    claim = str(claims[-1]).upper()
    return _ALIASES.get(claim, claim)


def claimed_context(name: str) -> int | None:
    """``-16k`` in a name -> 16384. A hint at most; 1k to 2000k."""
    found = [int(number) for number in _CONTEXT_CLAIM.findall(name)]
    return found[-1] * 1024 if found and 1 < found[-1] <= 2000 else None


def claimed_params(name: str) -> float | None:
    """``-7B`` in a name -> 7e9, ``8x7B`` -> 56e9 (an upper bound: experts share layers)."""
    found = _SIZE_CLAIM.findall(name)
    if not found:
        return None
    experts, size = found[0]
    return float(size) * 1e9 * int(experts or 1)


def params_warning(name: str, num_params: int | None) -> Iterator[str]:
    """What to say where a name claims far more or fewer parameters than there are."""
    claim = claimed_params(name)
    if claim and num_params and not 0.5 < num_params / claim < 1.6:
        yield f"the name says {claim / 1e9:g}B parameters; there are {num_params / 1e9:.2g}B"


def gguf_quant(header: GgufHeader) -> str:
    """What the tensors are, by ``general.file_type`` where it agrees with them.

    The type of most weights decides; the file type only tells mixes apart (``Q4_K_S`` from
    ``_M``).
    """
    dominant = dominant_type(header.tensors)
    said = FILE_TYPES.get((header.integer("general.file_type") or 0) % 1024, "")
    if "general.file_type" in header.metadata and base_type(said) == base_type(dominant):
        return said
    return dominant


def dominant_type(tensors: Iterable[TensorInfo]) -> str:
    """The type that holds most weights of the matrices; ``F32`` if there are none."""
    weights: Counter[str] = Counter()
    for tensor in tensors:
        if len(tensor.shape) > 1 and not tensor.name.startswith(("token_embd", "output")):
            weights[tensor.type.name] += tensor.num_weights
    return weights.most_common(1)[0][0] if weights else "F32"


def base_type(quant: str) -> str:
    """``Q4_K_M`` -> ``Q4_K``: what the bulk of such a file's matrices is made of."""
    return _MIXES.get(quant, re.sub(r"_(?:XXL|XL|XS|S|M|L|P)$", "", quant)) if quant else ""


_MIXES = {
    "IQ3_M": "IQ3_S",
    "IQ3_XS": "IQ3_S",
    "IQ2_M": "IQ2_S",
    "Q2_K_S": "Q2_K",
    **{name: name for name in ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S")},
    **{name: name for name in ("IQ3_XXS", "IQ3_S", "IQ4_XS", "IQ4_NL")},
}


def disagrees(claim: str, actual: str) -> bool:
    """Whether a file named ``claim`` cannot be one of mostly ``actual`` tensors.

    Names of mixes say nothing exact, but their digit is that of the bulk.
    """
    bits, actual_bits = claimed_bits(claim), claimed_bits(actual)
    return bits is not None and actual_bits is not None and bits != actual_bits


def claimed_bits(quant: str) -> int | None:
    """The bits in a quantization's name: 4 for ``Q4_K_M`` and ``MXFP4``, 16 for ``BF16``."""
    if quant in _WHOLE_TYPES:
        return _WHOLE_TYPES[quant]
    match = re.match(r"(?:I?Q|TQ)(\d)", quant)
    return int(match[1]) if match else None


_WHOLE_TYPES = {"F32": 32, "F16": 16, "BF16": 16, "FP8": 8, "MXFP4": 4, "NVFP4": 4}
