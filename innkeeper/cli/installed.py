"""What ``./start`` wrote down about the llama.cpp that it installed."""

import json
import sys
from pathlib import Path
from typing import Any


def llama_record() -> dict[str, Any]:
    """``build`` (such as ``cpu-compiled``), ``why`` and ``unused_gpu``.

    Empty after a plain ``pip install``, which leaves no record.
    """
    try:
        state = json.loads((Path(sys.prefix) / "innkeeper-setup.json").read_text())
    except (OSError, ValueError):
        return {}
    record = state.get("llama", {}) if isinstance(state, dict) else {}
    return record if isinstance(record, dict) else {}


def unused_gpu() -> str | None:
    """Why a GPU of this computer stays unused, as the set-up found."""
    reason = llama_record().get("unused_gpu")
    return reason if isinstance(reason, str) else None
