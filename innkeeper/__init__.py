"""Innkeeper: a self-hosted LLM server for one person's computer."""

__version__ = "0.1.0"
