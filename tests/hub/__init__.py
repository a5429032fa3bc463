"""A hub that tests can run: the parts of the Hugging Face hub's HTTP API that Innkeeper uses."""

from tests.hub.faults import Fault
from tests.hub.repo import HubFile, HubRepo
from tests.hub.server import LocalHub, Seen

__all__ = ["Fault", "HubFile", "HubRepo", "LocalHub", "Seen"]
