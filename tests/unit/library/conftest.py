"""A hub for the catalogue's tests."""

from tests.hub.fixtures import hf_home, hub, server, waits

__all__ = ["hf_home", "hub", "server", "waits"]
