"""A repository as a source of headers: the first bytes of its files, read by ranges."""

from collections.abc import Mapping

from innkeeper.errors import CorruptModelError, NotFoundError
from innkeeper.hub.client import Hub
from innkeeper.hub.listing import Listing
from innkeeper.units import MIB

MAX_PREFIX_BYTES = 32 * MIB
"""The largest header that is fetched; real ones have at most about 17 MiB."""


class HubSource:
    """``formats.Source`` over HTTP. What was read once is kept, and only what lacks is fetched."""

    def __init__(self, hub: Hub, listing: Listing) -> None:
        self._hub = hub
        self._listing = listing
        self._read: dict[str, bytes] = {}
        self.files: Mapping[str, int] = listing.sizes

    def read(self, name: str, num_bytes: int) -> bytes:
        """The first ``num_bytes`` of a file, or all of it.

        Raises: NotFoundError, HubError; CorruptModelError if that is more than any header has.
        """
        if name not in self.files:
            raise NotFoundError(f"{self._listing.repo_id} has no file {name}")
        wanted = min(num_bytes, self.files[name])
        if wanted > MAX_PREFIX_BYTES:
            raise CorruptModelError(
                f"its header would have {wanted // MIB:,} MiB, more than any model's",
                hint="choose another file",
            )
        found = self._read.get(name, b"")
        if len(found) < wanted:
            url = self._hub.file_url(self._listing.repo_id, name, self._listing.commit)
            found += self._hub.get_range(url, len(found), wanted, self._listing.repo_id)
            self._read[name] = found
        return found[:wanted]
