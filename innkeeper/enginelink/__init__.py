"""The gateway's handle on one engine process: start, talk, notice its death, end it.

``EngineLink.start(config)`` spawns ``python -m innkeeper.engine`` with a clean environment, loads
the model and returns a link whose ``facts`` describe it. ``stream`` generates, ``tokenize``,
``detokenize`` and ``probe`` answer at once, ``lost`` resolves when the process dies or hangs.
"""

from innkeeper.enginelink.link import EngineLink, LinkLimits
from innkeeper.enginelink.stream import EngineStream

__all__ = ["EngineLink", "EngineStream", "LinkLimits"]
