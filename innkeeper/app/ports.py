"""Ports, taken before anything slow happens."""

import errno
import socket
import sys

import psutil

from innkeeper.errors import SettingsError, StartError


def bind(host: str, port: int, purpose: str, flag: str) -> socket.socket:
    """A socket bound to ``host`` and ``port``.

    Raises: StartError naming the port, who has it if that is known, and the flag to change it;
    SettingsError if ``host`` is no address of this computer.
    """
    address = _address(host, port)
    # asyncio turns Nagle's delay (40 ms an answer) off only where the protocol is named
    bound = socket.socket(address[0], socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if sys.platform != "win32":  # there it would let two servers share the port
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address[1])
        # listening already here: on Linux two sockets may be bound, but only one may listen
        bound.listen(128)
    except OSError as error:
        bound.close()
        raise _translated(error, host, port, purpose, flag) from None
    bound.setblocking(False)
    return bound


def _address(host: str, port: int) -> tuple[int, tuple[str, int]]:
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise SettingsError(
            f"host {host!r} is not an address of this computer",
            field="host",
            hint="127.0.0.1 for this computer alone, 0.0.0.0 for the network",
        ) from None
    # IPv4 first: SillyTavern turns localhost into 127.0.0.1
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return family, (str(address[0]), int(address[1]))


def _translated(
    error: OSError, host: str, port: int, purpose: str, flag: str
) -> StartError | SettingsError:
    if error.errno == errno.EADDRINUSE:
        return StartError(
            f"port {port} ({purpose}) is in use{_holder(port)}", hint=f"choose another with {flag}"
        )
    if error.errno == errno.EACCES:
        return StartError(
            f"port {port} ({purpose}) needs rights that this user lacks",
            hint=f"choose one above 1023 with {flag}",
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return SettingsError(
            f"host {host} is not an address of this computer",
            field="host",
            hint="127.0.0.1 for this computer alone, 0.0.0.0 for the network",
        )
    return StartError(f"port {port} ({purpose}) cannot be opened: {error.strerror or error}")


def _holder(port: int) -> str:
    """`` by NAME (process N)``, where the system tells."""
    try:
        for connection in psutil.net_connections("tcp"):
            is_listening = connection.status == psutil.CONN_LISTEN and connection.laddr
            if is_listening and tuple(connection.laddr)[-1] == port and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (process {connection.pid})"
    except (psutil.Error, OSError):
        pass
    return ""
