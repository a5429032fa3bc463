"""What was measured once on this machine, in JSON files of the home's cache folder."""

import json
import os
from contextlib import suppress
from pathlib import Path


def load_measured(path: Path) -> dict[str, object]:
    """The entries of ``path``; none if it is not there or broken."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def store_measured(path: Path, key: str, value: object) -> None:
    """Adds an entry to ``path``, replacing the file as a whole. Without room nothing happens: it is
    measured again next time."""
    entries = {**load_measured(path), key: value}
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(json.dumps(entries, indent=1), encoding="utf-8")
        fresh.replace(path)
    except OSError:
        with suppress(OSError):
            fresh.unlink()
