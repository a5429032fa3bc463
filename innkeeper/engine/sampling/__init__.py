"""Choosing the next token: biases, then named steps in the asked-for order, then a draw."""

from innkeeper.engine.sampling.candidates import CANDIDATE, Candidates
from innkeeper.engine.sampling.chain import NativeSteps, Step, TokenSampler, build_sampler

__all__ = ["CANDIDATE", "Candidates", "NativeSteps", "Step", "TokenSampler", "build_sampler"]
