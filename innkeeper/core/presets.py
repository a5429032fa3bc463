"""Sampling under a name: what users reach for first."""

import msgspec

from innkeeper.core.request import SamplingParams

PRESETS: dict[str, SamplingParams] = {
    "min-p": SamplingParams(min_p=0.05),
    "dry-xtc": SamplingParams(
        min_p=0.02, dry_multiplier=0.8, xtc_probability=0.5, xtc_protect=True
    ),
    "mirostat": SamplingParams(mirostat=2, mirostat_tau=5.0, mirostat_eta=0.1),
}
_KEPT = ("logit_bias", "ban_eos", "min_tokens", "seed")
"""No part of a way to sample."""


def with_preset(params: SamplingParams, name: str) -> SamplingParams:
    """The preset's, with the bias, bans, least length and seed of ``params``."""
    kept = {field: getattr(params, field) for field in _KEPT}
    return msgspec.structs.replace(PRESETS[name], **kept)
