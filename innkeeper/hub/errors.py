"""What can go wrong with the hub, as a branch of Innkeeper's tree of errors.

HubError                    the hub's answer cannot be used
├── HubUnreachableError     there is no answer
├── HubAccessError          gated, or a licence not accepted
│   └── HubTokenError       the access token is missing or wrong
├── HubBusyError            it asked us to wait, and for too long
└── DownloadError           bytes did not arrive as they should
    ├── DownloadPausedError stopped on purpose; what is there is kept
    ├── DiskFullError       not enough space, before or during
    └── WrongContentError   what arrived is not what was announced
"""

from innkeeper.errors import InnkeeperError


class HubError(InnkeeperError):
    code = "hub"


class HubUnreachableError(HubError):
    code = "hub_unreachable"


class HubAccessError(HubError):
    code = "hub_access"


class HubTokenError(HubAccessError):
    code = "hub_token"


class HubBusyError(HubError):
    code = "hub_busy"


class DownloadError(HubError):
    code = "download_failed"


class DownloadPausedError(DownloadError):
    code = "download_paused"


class DiskFullError(DownloadError):
    code = "disk_full"


class WrongContentError(DownloadError):
    code = "wrong_content"
