"""``innkeeper up`` as a real process, for tests that need one."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType

import psutil

READY_SECONDS = 120
STOP_SECONDS = 30


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ServerProcess:
    """Starts on free ports, waits for the ready line, and ends with the block."""

    def __init__(self, home: Path, *arguments: str, environment: dict[str, str] | None = None):
        self.api_port, self.ui_port = free_port(), free_port()
        self.api_url = f"http://127.0.0.1:{self.api_port}/"
        self.ui_url = f"http://127.0.0.1:{self.ui_port}/"
        ports = ["--api-port", str(self.api_port), "--ui-port", str(self.ui_port)]
        self._command = [sys.executable, "-P", "-m", "innkeeper", "up", *arguments, *ports]
        self.home = home
        others = {k: v for k, v in os.environ.items() if not k.startswith("INNKEEPER_")}
        self._environment = {**others, "INNKEEPER_HOME": str(home), **(environment or {})}
        self._log = tempfile.TemporaryFile()

    def __enter__(self) -> "ServerProcess":
        self.process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=self._environment,
        )
        self.ready_line = self._first_line()
        if not self.ready_line:
            self.process.kill()
            self.process.wait()
            log = self.log
            self._close()
            raise AssertionError(f"the server did not get ready:\n{log}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.stop()
        self._close()

    @property
    def log(self) -> str:
        """What it wrote to stderr so far."""
        self._log.seek(0)
        return self._log.read().decode("utf-8", "replace")

    @property
    def engines(self) -> list[psutil.Process]:
        """The engine processes under it."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def stop(self, number: int = signal.SIGINT) -> int:
        """Asks it to end, as Ctrl-C does; its exit code."""
        self.process.send_signal(number)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the server did not stop:\n{self.log}") from None

    def _close(self) -> None:
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()

    def _first_line(self) -> str:
        """The first line of stdout; empty if it ends, or takes too long, before one."""
        assert self.process.stdout is not None
        timer = threading.Timer(READY_SECONDS, self.process.kill)
        timer.start()
        try:
            return self.process.stdout.readline().strip()
        finally:
            timer.cancel()
