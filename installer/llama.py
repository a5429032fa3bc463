"""Installs llama-cpp-python, built for this machine."""

import os
import subprocess
import sys
from pathlib import Path

from installer.builds import CPU_SECONDS, FAST_ARGS, HOOK, Build, choose, help_for
from installer.environment import LLAMA, Environment, SetupError, digest
from installer.machine import Machine, look, output_of
from installer.progress import Progress, StepError, format_seconds, say

PROBE = "from llama_cpp import llama_cpp as c; c.llama_backend_init(); c.llama_print_system_info()"
"""A wheel may install and yet not load: a missing CUDA library, a newer libc, another CPU."""


def install_llama(environment: Environment, progress: Progress) -> None:
    """Installs the best build that works here, unless it is already there.

    Raises: SetupError with the one command that helps.
    """
    lock = environment.root / "requirements.lock"
    llama_lock, _ = environment.split_lock(lock)
    machine = look()
    wanted = os.environ.get("INNKEEPER_BUILD", "")
    builds = choose(machine, wanted)
    key = digest(llama_lock.read_bytes(), repr(builds).encode(), machine.cpu.encode())
    if environment.state.get("llama", {}).get("key") == key:
        return
    for build in builds:
        if _try(environment, progress, machine, build, llama_lock):
            facts = {"key": key, "build": build.name, "why": build.why}
            environment.remember("llama", {**facts, "unused_gpu": build.unused_gpu})
            if build.unused_gpu:
                say(build.unused_gpu)
            return
    raise SetupError(_nothing_fits(machine, wanted, environment))


def _nothing_fits(machine: Machine, wanted: str, environment: Environment) -> str:
    if wanted:
        names = ", ".join(build.name for build in choose(machine))
        return f"INNKEEPER_BUILD={wanted} does not work here; this machine offers: {names}"
    if machine.compiler is None:
        return f"llama.cpp needs a C++ compiler here; {help_for(machine)}, then ./start again"
    return f"no build of llama.cpp works here; the logs in {environment.logs} say why"


def _try(
    environment: Environment, progress: Progress, machine: Machine, build: Build, lock: Path
) -> bool:
    label = f"llama.cpp, {build.why}"
    command = _compile(environment, machine, build, lock) if build.compiled else []
    if build.compiled:
        seconds = CPU_SECONDS[build.device] / machine.num_cores
        say(f"compiling llama.cpp takes about {format_seconds(seconds)} here, this once")
    # not --reinstall-package: it would also compile again what uv has in its cache
    subprocess.run(environment.uv("uninstall", LLAMA), capture_output=True)
    try:
        progress.run(label, command or _download(environment, build))
        if build.cuda_major and sys.platform == "linux":
            _add_cuda_libraries(environment, progress, build.cuda_major)
        progress.run(f"trying llama.cpp ({build.name})", [environment.python, "-c", PROBE])
    except StepError as error:
        say(str(error))
        return False
    return True


def _compile(environment: Environment, machine: Machine, build: Build, lock: Path) -> list[str]:
    # the CPU is part of the path, and so of uv's cache key: a home on two machines keeps two builds
    hook = _cache_folder() / machine.cpu / "llama_cpp_targets.cmake"
    hook.parent.mkdir(parents=True, exist_ok=True)
    hook.write_text(HOOK)
    hook_arg = f"-DCMAKE_PROJECT_llama_cpp_INCLUDE={hook.as_posix()}"
    args = ";".join((*FAST_ARGS, hook_arg, *build.cmake_args))
    constraints = environment.root / "installer" / "build.lock"
    command = environment.uv("install", "--require-hashes", "--no-deps", "--no-binary", LLAMA)
    command += ["--build-constraints", str(constraints), "--require-build-hashes"]
    command += ["--config-settings-package", f"{LLAMA}:cmake.args={args}"]
    return [*command, "--requirements", str(lock)]


def _cache_folder() -> Path:
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "innkeeper" / "build"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "innkeeper" / "build"


def _download(environment: Environment, build: Build) -> list[str]:
    version = _locked_version(environment)
    command = environment.uv("install", "--no-deps", "--only-binary", LLAMA)
    return [*command, "--index", str(build.index), f"{LLAMA}=={version}"]


def _locked_version(environment: Environment) -> str:
    entry = (environment.venv / "llama.lock").read_text()
    return entry.split("==")[1].split()[0]


def _add_cuda_libraries(environment: Environment, progress: Progress, major: int) -> None:
    """The CUDA wheels lack the CUDA runtime; NVIDIA's own packages have it.

    The wheel's libraries look beside themselves first, so links there are enough.
    """
    lock = environment.root / "installer" / f"cuda{major}.lock"
    if not lock.exists():
        return
    command = environment.uv("install", "--require-hashes", "--no-deps", "-r", str(lock))
    progress.run(f"installing the CUDA {major} runtime", command)
    where = "import sysconfig; print(sysconfig.get_path('platlib'))"
    packages = Path((output_of(environment.python, "-c", where) or "").strip())
    for library in packages.glob("nvidia/**/lib*.so.*"):
        link = packages / "llama_cpp" / "lib" / library.name
        if not link.exists():
            link.symlink_to(library)
