"""Says what is done and how long it took; keeps the output of every command in a log."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

NUM_SHOWN_LINES = 12


class StepError(Exception):
    """A command failed; ``log`` has its whole output."""

    def __init__(self, label: str, log: Path, help_text: str = "") -> None:
        super().__init__(f"{label} failed; the whole log: {log}")
        self.label = label
        self.log = log
        self.help_text = help_text


def say(text: str) -> None:
    """One line for the user, on stderr: stdout belongs to the command that follows."""
    print(f"innkeeper: {text}", file=sys.stderr, flush=True)


def format_seconds(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"


class Progress:
    """Runs the commands of one set-up."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._started = time.monotonic()
        self._num_steps = 0

    def run(
        self,
        label: str,
        command: list[str],
        *,
        help_text: str = "",
        environment: dict[str, str] | None = None,
    ) -> None:
        """Runs one step. Raises: StepError, after showing why it failed."""
        if self._num_steps == 0:
            say("setting up (once; later starts skip this)")
        self._num_steps += 1
        log = self._logs / (re.sub(r"\W+", "-", label).strip("-") + ".log")
        started = time.monotonic()
        status = self._watch(label, command, log, environment)
        took = format_seconds(time.monotonic() - started)
        self._line(f"{label} ... {'done in' if status == 0 else 'FAILED after'} {took}", end="\n")
        if status != 0:
            for line in reason_in(log.read_text(errors="replace").partition("\n\n")[2]):
                print(f"    {line}", file=sys.stderr)
            raise StepError(label, log, help_text)

    def _watch(
        self, label: str, command: list[str], log: Path, environment: dict[str, str] | None
    ) -> int:
        started = time.monotonic()
        with log.open("wb") as output:
            output.write((" ".join(command) + "\n\n").encode())
            output.flush()
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
            )
            self._line(f"{label} ...")
            try:
                while True:
                    try:
                        return process.wait(timeout=1)
                    except subprocess.TimeoutExpired:
                        if sys.stderr.isatty():
                            elapsed = format_seconds(time.monotonic() - started)
                            self._line(f"{label} ... {elapsed}")
            except BaseException:
                process.terminate()
                process.wait()
                self._line("", end="\n")
                raise

    def _line(self, text: str, end: str = "") -> None:
        """Rewrites the current line on a terminal; elsewhere only whole lines are printed."""
        if sys.stderr.isatty():
            print(f"\r\033[K  {text}", end=end, file=sys.stderr, flush=True)
        elif end:
            print(f"  {text}", file=sys.stderr, flush=True)

    def finish(self) -> None:
        if self._num_steps:
            say(f"set up in {format_seconds(time.monotonic() - self._started)}")


def reason_in(log: str) -> list[str]:
    """The lines of a build's log that say why it failed: errors, else its end."""
    lines = [line.rstrip() for line in log.splitlines() if line.strip()]
    wanted = re.compile(
        r"(\berror\b[: ]|CMake Error|No space left|not found|Killed)", re.IGNORECASE
    )
    errors = [line for line in lines if wanted.search(line)]
    return (errors or lines)[-NUM_SHOWN_LINES:]
