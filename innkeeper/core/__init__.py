"""The nouns that every layer speaks: requests, results, model facts and the engine's frames."""

from innkeeper.core.model import EngineConfig, EngineStats, ModelFacts
from innkeeper.core.request import (
    DEFAULT_SAMPLER_ORDER,
    Constraint,
    FinishReason,
    GenerateRequest,
    Message,
    SamplingParams,
    Timings,
    TokenLogprob,
)

__all__ = [
    "DEFAULT_SAMPLER_ORDER",
    "Constraint",
    "EngineConfig",
    "EngineStats",
    "FinishReason",
    "GenerateRequest",
    "Message",
    "ModelFacts",
    "SamplingParams",
    "Timings",
    "TokenLogprob",
]
