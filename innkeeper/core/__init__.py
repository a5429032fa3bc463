"""The nouns that every layer speaks: requests, results, model facts and the engine's frames."""

from innkeeper.core.model import (
    EngineConfig,
    EngineStats,
    LoraAdapter,
    ModelFacts,
    RopeScaling,
    num_outputs,
    num_sequence_ids,
)
from innkeeper.core.request import (
    DEFAULT_SAMPLER_ORDER,
    CallDelta,
    Constraint,
    FinishReason,
    GenerateRequest,
    Message,
    ReplyForm,
    SamplingParams,
    Timings,
    TokenLogprob,
    ToolUse,
)

__all__ = [
    "DEFAULT_SAMPLER_ORDER",
    "CallDelta",
    "Constraint",
    "EngineConfig",
    "EngineStats",
    "FinishReason",
    "GenerateRequest",
    "LoraAdapter",
    "Message",
    "ModelFacts",
    "ReplyForm",
    "RopeScaling",
    "SamplingParams",
    "Timings",
    "TokenLogprob",
    "ToolUse",
    "num_outputs",
    "num_sequence_ids",
]
