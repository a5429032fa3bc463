"""From the hub's refusals to what the user can do about them."""

from urllib.parse import urlsplit

import httpx2
from huggingface_hub import constants

from innkeeper.errors import InnkeeperError, NotFoundError
from innkeeper.hub.errors import HubAccessError, HubError, HubTokenError, HubUnreachableError


class Gone(Exception):
    """The server cannot answer now; ``retry_seconds`` is what it asked for."""

    def __init__(self, status: int, retry_seconds: float | None) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.retry_seconds = retry_seconds


def refusal(
    response: httpx2.Response, repo_id: str | None, endpoint: str, *, has_token: bool
) -> InnkeeperError:
    """The error for an answer of 4xx. Its body is never read: headers say enough."""
    status = response.status_code
    code = response.headers.get("x-error-code")
    page = f"{endpoint}/{repo_id}" if repo_id else endpoint
    if code == "GatedRepo" and (status == 403 or has_token):
        return HubAccessError(
            f"{repo_id} may be downloaded once its licence is accepted, which the account of your "
            "token has not done",
            hint=f"open {page}, accept it there, and try again",
        )
    if code == "GatedRepo":
        return HubTokenError(
            f"{repo_id} is only given to people who are logged in and accept its licence",
            hint=f"accept it at {page}, make a token at {endpoint}/settings/tokens, and set "
            "HF_TOKEN to it",
        )
    if status == 401 and has_token and code != "RepoNotFound":
        return HubTokenError(
            "the hub does not know your access token (HF_TOKEN, or the saved one)",
            hint=f"make a new one at {endpoint}/settings/tokens",
        )
    if code == "RevisionNotFound":
        return NotFoundError(f"{repo_id} has no such revision", hint=f"see {page}")
    if code == "EntryNotFound":
        return NotFoundError(f"{repo_id} has no such file (any more)", hint=f"see {page}")
    if status in (401, 404) and repo_id:
        return NotFoundError(
            f"there is no repository {repo_id} on {urlsplit(endpoint).hostname}, or it is private",
            hint="check its name; for a private one, set HF_TOKEN",
        )
    if status == 403:
        return HubAccessError(
            f"the hub does not let this token (or nobody) read {repo_id or page}",
            hint=f"see {page}, and the token's rights at {endpoint}/settings/tokens",
        )
    return HubError(f"the hub refused with status {status}", hint=f"see {page}")


def unreachable(error: Exception, endpoint: str) -> HubUnreachableError:
    """The error if no answer came, or only failures."""
    host = urlsplit(endpoint).netloc
    if isinstance(error, Gone):
        what = f"{host} is out of order (status {error.status})"
    elif isinstance(error, httpx2.TimeoutException):
        what = f"{host} did not answer in time"
    elif isinstance(error, httpx2.ProxyError):
        what = f"the proxy on the way to {host} refuses"
    elif isinstance(error, httpx2.ConnectError):
        what = f"{host} cannot be reached: {str(error)[:200] or 'no connection'}"
    else:
        what = f"the connection to {host} broke: {str(error)[:200] or type(error).__name__}"
    is_own = endpoint != constants._HF_DEFAULT_ENDPOINT
    hint = "check the address in HF_ENDPOINT" if is_own else "check the network connection"
    return HubUnreachableError(
        what, hint=f"{hint}; a mirror of the hub is used with HF_ENDPOINT=https://..."
    )
