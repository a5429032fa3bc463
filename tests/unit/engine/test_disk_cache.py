"""States on disk: what comes back is what was written, or nothing."""

import os
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import numpy as np
import pytest

from innkeeper.engine import state_file
from innkeeper.engine.bases import Checkpoint, SavedBase
from innkeeper.engine.disk_cache import DiskCache
from innkeeper.engine.runner import State
from innkeeper.engine.state_file import StateFileError

MIB = 1 << 20


def make_state(num_bytes: int = 2000, seed: int = 1) -> State:
    return np.frombuffer(Random(seed).randbytes(num_bytes), np.uint8)


def saved(tokens: list[int], num_exact: int, *state: int) -> SavedBase:
    return SavedBase(tokens, num_exact, "Mira", make_state(*state))


def open_cache(folder: Path, max_bytes: int = MIB, key: str = "a model") -> DiskCache:
    return DiskCache(folder, max_bytes, key)


def chat(number: int, length: int = 300) -> list[int]:
    return [number * 10_000 + i for i in range(length)]


def test_what_was_written_comes_back_in_another_process(tmp_path: Path) -> None:
    assert open_cache(tmp_path).write(saved(chat(1), 250))
    (found,) = open_cache(tmp_path).states()
    assert (found.tokens, found.num_exact) == (chat(1), 250)
    base = open_cache(tmp_path).read(found)
    assert base is not None
    assert base.state.tobytes() == make_state().tobytes()


def test_checkpoints_come_back_beside_the_state(tmp_path: Path) -> None:
    checkpoints = [Checkpoint(n, make_state(n, n)) for n in (100, 200)]
    open_cache(tmp_path).write(saved(chat(1), 300)._replace(checkpoints=checkpoints))
    cache = open_cache(tmp_path)
    (found,) = cache.states()
    assert found.cuts == [100, 200]
    base = cache.read(found)
    assert base is not None
    assert base.state.tobytes() == make_state().tobytes()
    assert [(c.length, c.state.tobytes()) for c in base.checkpoints] == [
        (c.length, c.state.tobytes()) for c in checkpoints
    ]
    assert (base.tokens, base.num_exact, base.speaker) == (chat(1), 300, "Mira")


def test_another_key_sees_nothing(tmp_path: Path) -> None:
    open_cache(tmp_path).write(saved(chat(1), 300))
    assert open_cache(tmp_path, key="another model").states() == []


def test_two_engines_see_what_the_other_writes_and_deletes(tmp_path: Path) -> None:
    one, other = open_cache(tmp_path), open_cache(tmp_path)
    assert other.states() == []
    one.write(saved(chat(1), 300))
    (found,) = other.states()
    one.drop(one.states()[0])
    assert other.read(found) is None
    assert other.states() == []


def test_least_recently_used_goes_first(tmp_path: Path) -> None:
    cache = open_cache(tmp_path, max_bytes=20_000)
    for number in range(3):
        cache.write(saved(chat(number), 300, 4000))
        time.sleep(0.01)  # the file system's clock has ticks
    first = next(s for s in cache.states() if s.tokens == chat(0))
    assert cache.read(first) is not None
    cache.write(saved(chat(7), 300, 4000))
    assert sorted(s.tokens[0] for s in cache.states()) == [0, 20_000, 70_000]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 20_000


def test_what_is_larger_than_the_limit_is_not_written(tmp_path: Path) -> None:
    cache = open_cache(tmp_path, max_bytes=3000)
    cache.write(saved(chat(1), 300, 100))
    assert not cache.write(saved(chat(2), 300, 5000))
    assert [s.tokens for s in cache.states()] == [chat(1)]


def test_a_chat_that_went_on_takes_its_own_place(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    cache.write(saved(chat(1, 300), 300))
    cache.write(saved(chat(2, 300), 300))
    cache.write(saved(chat(1, 400), 400))
    assert sorted(len(s.tokens) for s in cache.states()) == [300, 400]


def test_an_approximate_state_does_not_replace_an_exact_one(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    cache.write(saved(chat(1, 300), 300))
    cache.write(saved(chat(1, 400), 100))
    assert sorted(s.num_exact for s in cache.states()) == [100, 300]


def test_mutated_files_are_refused(tmp_path: Path) -> None:
    """10,000 of them: bytes changed, cut off, added, moved."""
    cache = open_cache(tmp_path)
    cache.write(saved(chat(1), 300, 600))
    (found,) = cache.states()
    good = found.path.read_bytes()
    rng = Random(5)
    path = tmp_path / "x.kv"
    with path.open("wb", buffering=0) as file:  # opened once: that is what takes time
        for _ in range(10_000):
            file.seek(0)
            file.truncate(file.write(mutate(good, rng)))
            with pytest.raises(StateFileError):
                state_file.read_base(path, state_file.read_header(path))


def mutate(good: bytes, rng: Random) -> bytes:
    data = bytearray(good)
    kind = rng.randrange(5)
    at = rng.randrange(len(data))
    if kind == 0:
        data[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del data[at:]
    elif kind == 2:
        data[at:at] = rng.randbytes(rng.randint(1, 64))
    elif kind == 3:
        data += rng.randbytes(rng.randint(1, 64))
    else:
        data[at : at + 40] = bytes(255 - byte for byte in data[at : at + 40])
    return bytes(data)


def test_a_changed_state_is_forgotten_and_deleted(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    cache.write(saved(chat(1), 300))
    (found,) = cache.states()
    data = bytearray(found.path.read_bytes())
    data[-1] ^= 1
    found.path.write_bytes(data)
    assert cache.read(found) is None
    assert cache.states() == []
    assert not found.path.exists()


def test_a_changed_header_is_deleted_when_the_folder_is_read(tmp_path: Path) -> None:
    open_cache(tmp_path).write(saved(chat(1), 300))
    (path,) = tmp_path.glob("*.kv")
    path.write_bytes(path.read_bytes()[:-7])
    assert open_cache(tmp_path).states() == []
    assert not path.exists()


def test_an_unwritable_folder_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    cache = open_cache(tmp_path / "cache")
    (tmp_path / "cache").rmdir()
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OSError):
        cache.write(saved(chat(1), 300))
    assert cache.states() == []


WRITER = """
import sys
from pathlib import Path
import numpy as np
from innkeeper.engine.bases import SavedBase
from innkeeper.engine.disk_cache import DiskCache
cache = DiskCache(Path(sys.argv[1]), 1 << 30, "a model")
print("ready", flush=True)
for number in range(100_000):
    tokens = [number * 1000 + i for i in range(300)]
    state = np.full(300_000, number % 251, np.uint8)
    cache.write(SavedBase(tokens, 300, "", state))
"""


def test_kill_while_writing_leaves_nothing_wrong(tmp_path: Path) -> None:
    rng = Random(3)
    num_read = 0
    for _ in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(rng.random() * 0.1)
            writer.kill()
        cache = open_cache(tmp_path, max_bytes=1 << 30)
        for found in cache.states():
            base = cache.read(found)
            assert base is not None
            assert set(base.state.tolist()) == {found.tokens[0] // 1000 % 251}
            num_read += 1
    assert num_read > 0


def test_abandoned_parts_are_removed(tmp_path: Path) -> None:
    old, new = tmp_path / "x.kv.1.part", tmp_path / "y.kv.2.part"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    open_cache(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [new.name]
