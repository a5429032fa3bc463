"""What can be loaded by name, and with which settings."""

from collections.abc import Collection, Sequence
from pathlib import Path

from innkeeper.core import EngineConfig
from innkeeper.errors import NotFoundError
from innkeeper.serving.engine_settings import EngineDefaults, Overrides
from innkeeper.serving.names import ModelEntry, bare, entry, match, model_name, models_in

_MAX_SHOWN = 20


class Shelf:
    """Models in folders, and files that the user of this computer chose; each with the settings it
    was last loaded with by hand, or else the server's."""

    def __init__(self, folders: Sequence[Path], defaults: EngineDefaults) -> None:
        self._folders = tuple(folders)
        self._defaults = defaults
        self._chosen: dict[str, Path] = {}
        self._configs: dict[str, EngineConfig] = {}

    def entries(self) -> list[ModelEntry]:
        """What there is, sorted: files in the folders (first parts only, the first folder's names
        win), and chosen ones. Reads the folders anew each time."""
        paths: dict[str, Path] = {}
        for folder in reversed(self._folders):
            paths |= models_in(folder)
        paths |= self._chosen
        found = [entry(path, name) for name, path in paths.items()]
        return sorted((each for each in found if each), key=lambda each: each.name.lower())

    def resolve(self, name: str, here: Collection[str], *, exact: bool) -> tuple[str, str | None]:
        """As ``Models.resolve``, with the models that are ``here`` (loaded, or being loaded); if
        ``exact``, none answers to another's name."""
        wanted = bare(name)
        if not wanted:
            return "", None
        if (found := match(wanted, here)) is not None:
            return found, None
        names = [each.name for each in self.entries()]
        if (found := match(wanted, names)) is not None:
            return found, None
        if exact or len(here) > 1 or (names and not here):
            raise self._not_found(name, "model")
        only = next(iter(here), "the loaded model")
        return "", f"there is no model {wanted[:80]!r} here: {only} answered"

    def config(self, name: str) -> EngineConfig:
        """As it was loaded by hand before, or as the server is set. Raises: NotFoundError."""
        return self._configs.get(name) or self.listed(name, None, field="model")

    def listed(
        self, name: str, overrides: Overrides | None, field: str = "model_name"
    ) -> EngineConfig:
        """For the entry called ``name``. Raises: NotFoundError."""
        for each in self.entries():
            if each.name == name:
                return self._defaults.config(each.path, name, overrides)
        raise self._not_found(name, field)

    def choose(self, path: Path, overrides: Overrides | None) -> EngineConfig:
        """For a file that is an entry from now on."""
        name = model_name(Path(path.name))
        self._chosen[name] = path
        return self._defaults.config(path, name, overrides)

    def remember(self, config: EngineConfig) -> None:
        self._configs[config.name] = config

    def _not_found(self, name: str, field: str) -> NotFoundError:
        names = [each.name for each in self.entries()]
        shown = ", ".join(names[:_MAX_SHOWN]) + (", ..." if len(names) > _MAX_SHOWN else "")
        return NotFoundError(
            f"there is no model {name[:80]!r} here",
            field=field,
            hint=f"there are: {shown}" if names else "put a .gguf file into the models folder",
        )
