"""Runners of ``engine.runner``'s protocol, imported by name in the engine process only."""
