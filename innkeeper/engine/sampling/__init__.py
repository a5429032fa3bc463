"""Choosing the next token: biases, then named steps in the asked-for order, then a draw."""

from innkeeper.engine.sampling.candidates import Candidates
from innkeeper.engine.sampling.chain import Step, TokenSampler, active_steps, build_sampler

__all__ = ["Candidates", "Step", "TokenSampler", "active_steps", "build_sampler"]
