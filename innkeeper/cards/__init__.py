"""Characters: cards as front ends share them, read as text and nothing else."""

from innkeeper.cards.card import Card, fill, read_card
from innkeeper.cards.folder import Cards

__all__ = ["Card", "Cards", "fill", "read_card"]
