"""A hub for each test."""

from tests.hub.fixtures import hf_home, hub, server, waits

__all__ = ["hf_home", "hub", "server", "waits"]
