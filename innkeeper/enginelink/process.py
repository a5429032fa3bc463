"""The operating-system side of an engine: spawning, its log, and why it ended."""

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

import innkeeper
from innkeeper.units import MIB

DEFAULT_COMMAND = (sys.executable, "-P", "-m", "innkeeper.engine")

_LOG_LINES = 200
_LOG_BYTES = 8 * MIB
_STREAM_LIMIT = 4 * MIB
_CAUSE_CHARS = 400
_LAST_WORDS_SECONDS = 0.3
_PASSED_NAMES = frozenset(
    "PATH HOME USERPROFILE SYSTEMROOT SYSTEMDRIVE WINDIR COMSPEC LD_LIBRARY_PATH DYLD_LIBRARY_PATH"
    " LANG LANGUAGE TZ TMP TEMP TMPDIR PYTHONPATH VIRTUAL_ENV NUMBER_OF_PROCESSORS".split()
)
_PASSED_PREFIXES = (
    "LC_ CUDA HIP_ HSA_ ROCR_ ROCM_ GGML_ OMP_ GOMP_ KMP_ VK_ MTL_ METAL_ NVIDIA_ ONEAPI_ SYCL_"
    " ZE_ MKL_ OPENBLAS_"
).split()
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
_MEANINGFUL = re.compile(
    r"error|assert|abort|fail|fatal|exception|out of memory|cannot|unable", re.IGNORECASE
)


def clean_environment(source: Mapping[str, str]) -> dict[str, str]:
    """What an engine may see of ``source``: paths, locale and device settings; no secrets."""
    kept = {
        name: value
        for name, value in source.items()
        if (name in _PASSED_NAMES or name.startswith(tuple(_PASSED_PREFIXES)))
        and not _SECRET.search(name)
    }
    # The engine is started with -P, so that a file in the working folder cannot pose as a module.
    own = str(Path(innkeeper.__file__).resolve().parent.parent)
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, [own, kept.get("PYTHONPATH")]))
    kept["PYTHONUNBUFFERED"] = "1"
    return kept


class EngineProcess:
    """A child with frames on stdin and stdout, and its log on stderr."""

    def __init__(self, process: asyncio.subprocess.Process, log_path: Path | None) -> None:
        assert process.stdin and process.stdout and process.stderr
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout
        self._log: deque[str] = deque(maxlen=_LOG_LINES)
        self._log_path = log_path
        self._log_task = asyncio.create_task(self._keep_log(process.stderr))

    @classmethod
    async def spawn(cls, command: Sequence[str], *, log_path: Path | None) -> "EngineProcess":
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=clean_environment(os.environ),
            limit=_STREAM_LIMIT,
            start_new_session=True,
        )
        return cls(process, log_path)

    @property
    def id(self) -> int:
        return self._process.pid

    @property
    def log_lines(self) -> list[str]:
        """The last lines of its log, oldest first."""
        return list(self._log)

    async def read(self, num_bytes: int) -> bytes:
        """Up to ``num_bytes`` of its stdout; empty at the end."""
        return await self._stdout.read(num_bytes)

    def write(self, data: bytes) -> None:
        """Sends without waiting; the number of open requests bounds what can pile up."""
        with contextlib.suppress(ConnectionError, RuntimeError):
            self._stdin.write(data)

    def kill(self) -> None:
        self._signal(getattr(signal, "SIGKILL", signal.SIGTERM))

    async def wait(self) -> int:
        return await self._process.wait()

    async def end(self, grace_seconds: float, seconds: float) -> None:
        """Closes stdin, terminates after ``grace_seconds``, kills ``seconds`` later. Idempotent."""
        with contextlib.suppress(ConnectionError, RuntimeError):
            self._stdin.close()
        for step in (None, signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
            if step is not None:
                self._signal(step)
            wait = grace_seconds if step is None else seconds
            done, _ = await asyncio.wait([asyncio.ensure_future(self.wait())], timeout=wait)
            if done:
                break
        await asyncio.wait([self._log_task], timeout=_LAST_WORDS_SECONDS)
        self._log_task.cancel()

    async def explain_end(self) -> str:
        """Waits for the end of a process whose stdout has closed; one line saying why."""
        try:
            code = await asyncio.wait_for(self.wait(), _LAST_WORDS_SECONDS)
        except TimeoutError:
            self.kill()
            code = await self.wait()
        await asyncio.wait([self._log_task], timeout=_LAST_WORDS_SECONDS)
        return _explain(code, self.log_lines)

    def _signal(self, number: int) -> None:
        if self._process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, number)
            else:
                self._process.send_signal(number)

    async def _keep_log(self, stderr: asyncio.StreamReader) -> None:
        with contextlib.ExitStack() as stack:
            file = None
            if self._log_path is not None:
                _rotate(self._log_path)
                file = stack.enter_context(self._log_path.open("ab", buffering=0))
            while chunk := await _read_line(stderr):
                self._log.append(chunk.decode("utf-8", "replace").rstrip())
                if file is not None:
                    with contextlib.suppress(OSError):
                        file.write(chunk)


async def _read_line(stream: asyncio.StreamReader) -> bytes:
    try:
        return await stream.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError as error:
        return await stream.readexactly(error.consumed)


def _rotate(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.stat().st_size > _LOG_BYTES:
            path.replace(path.with_suffix(path.suffix + ".1"))


def _explain(code: int, lines: Sequence[str]) -> str:
    words = [line.strip() for line in lines if line.strip()]
    telling = [line for line in words if _MEANINGFUL.search(line)] or words
    cause = " | ".join(telling[-2:])[-_CAUSE_CHARS:]
    if code >= 0:
        end = f"exit code {code}"
    else:
        with contextlib.suppress(ValueError):
            end = signal.Signals(-code).name
            if end == "SIGKILL":
                return f"{end} (killed from outside, perhaps because memory ran out)"
            return f"{end}: {cause}" if cause else end
        end = f"signal {-code}"
    return f"{end}: {cause}" if cause else end
