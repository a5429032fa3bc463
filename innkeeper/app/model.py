"""Which model file the user means."""

import re
from pathlib import Path

from innkeeper.app.home import Home
from innkeeper.errors import InvalidRequestError, ModelFileError, NotFoundError

_LATER_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)


def find_model(home: Home, wanted: str | None) -> Path:
    """The file that ``wanted`` (a file, a folder, a name in ``models/``) means.

    None means the one model in ``models/``; of several, the newest.
    Raises: NotFoundError, ModelFileError, InvalidRequestError.
    """
    if wanted is None:
        return _newest(home)
    path = Path(wanted).expanduser()
    if path.is_dir():
        return _only(path)
    if path.exists():
        return _readable(path)
    for name in (wanted, f"{wanted}.gguf"):
        named = home.models / name
        if named.is_file() and named.resolve().is_relative_to(home.models.resolve()):
            return _readable(named)
    raise NotFoundError(
        f"there is no file {wanted}, and no model of that name in {home.models}",
        hint="give the path of a .gguf file, or put it into that folder",
    )


def models_in(folder: Path) -> list[Path]:
    """GGUF files under ``folder``, newest first; of a split model its first part only."""
    files = [
        path
        for path in folder.rglob("*.gguf")
        if path.is_file() and not _LATER_PART.search(path.name)
    ]
    files = [path for path in files if not path.name.lower().startswith("mmproj")]
    return sorted(files, key=lambda path: (-path.stat().st_mtime, path.name))


def _newest(home: Home) -> Path:
    files = models_in(home.models)
    if not files:
        raise NotFoundError(
            f"no model was named, and there is none in {home.models}",
            hint="give the path of a .gguf file, or put one into that folder",
        )
    return _readable(files[0])


def _only(folder: Path) -> Path:
    files = models_in(folder)
    if len(files) == 1:
        return _readable(files[0])
    if not files:
        raise NotFoundError(f"the folder {folder} has no .gguf file in it")
    names = ", ".join(sorted(path.name for path in files)[:5])
    raise InvalidRequestError(
        f"the folder {folder} has {len(files)} models in it", hint=f"name one of them: {names}"
    )


def _readable(path: Path) -> Path:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise ModelFileError(
            f"{path} cannot be read: {error.strerror or error}", hint="check who may read it"
        ) from None
    return path
