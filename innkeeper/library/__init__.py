"""Models on this computer: found where they lie, known by name; and a few worth getting."""

from innkeeper.library.catalogue import CatalogueEntry, Choice, catalogue, choose
from innkeeper.library.library import Library, LocalModel, Origin, resolve
from innkeeper.library.places import PlaceKind

__all__ = [
    "CatalogueEntry",
    "Choice",
    "Library",
    "LocalModel",
    "Origin",
    "PlaceKind",
    "catalogue",
    "choose",
    "resolve",
]
