"""The cache of embeddings: every value right or missing, whoever writes, dies or damages it."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tator_ml.engine.crops import CropRecipe
from tator_ml.learning import embeddings
from tator_ml.learning.embeddings import LEAST_BYTES, EmbeddingCache, ImageBox, key_of

DIM = 512
LARGE = 64 * 2**20


def key(number: int) -> bytes:
    return hashlib.blake2b(str(number).encode(), digest_size=20).digest()


def value(number: int) -> Any:
    """The only right embedding of a key."""
    row = np.random.default_rng(number).normal(size=DIM)
    return (row / np.linalg.norm(row)).astype(np.float16)


def pairs(numbers: Any) -> list[tuple[bytes, Any]]:
    return [(key(number), value(number)) for number in numbers]


def right(cache: EmbeddingCache, numbers: Any) -> list[int]:
    """Numbers that are there; each must be what was put."""
    numbers = list(numbers)
    found = cache.get([key(number) for number in numbers])
    for number, row in zip(numbers, found, strict=True):
        assert row is None or (row == value(number)).all(), f"{number} is wrong"
    return [number for number, row in zip(numbers, found, strict=True) if row is not None]


FORKS = multiprocessing.get_context("forkserver")  # a new interpreter takes a second to read what this file imports
FORKS.set_forkserver_preload([__name__])
Work = Callable[[EmbeddingCache, Connection], None]


@dataclass
class Other:
    """Another process, and what it says and is told."""

    process: BaseProcess
    pipe: Connection

    def ended(self) -> int | None:
        """Its exit code, once it has ended."""
        self.process.join(60)
        return self.process.exitcode

    def killed(self) -> list[Any]:
        """End it with -9; what it had said until then."""
        self.process.kill()
        said = []
        with contextlib.suppress(EOFError, OSError):  # the latter in the middle of a word
            while True:
                said.append(self.pipe.recv())
        self.process.join()
        return said


def other(folder: Path, work: Work, max_bytes: int = LARGE) -> Other:
    """A process with the same cache open, which does ``work`` with it."""
    mine, its = FORKS.Pipe()
    process = FORKS.Process(target=_live, args=(folder, max_bytes, work, its), daemon=True)
    process.start()
    its.close()
    assert mine.recv() == "ready"
    return Other(process, mine)


def _live(folder: Path, max_bytes: int, work: Work, pipe: Connection) -> None:
    cache = EmbeddingCache(folder, max_bytes)
    pipe.send("ready")
    work(cache, pipe)


def count(numbers: range, cache: EmbeddingCache, pipe: Connection) -> None:
    pipe.send(len(right(cache, numbers)))


def write_when_told(numbers: range, cache: EmbeddingCache, pipe: Connection) -> None:
    pipe.recv()
    for n in numbers:
        cache.put(pairs([n, n % 50]))


def write_on_and_on(n: int, cache: EmbeddingCache, pipe: Connection) -> None:
    while True:
        cache.put(pairs(range(n, n + 20)))
        n += 20
        pipe.send(n)


def read_and_stay(cache: EmbeddingCache, pipe: Connection) -> None:
    reading = cache._environment.begin()
    reading.get(b"x")
    pipe.send("in")
    time.sleep(60)


def write_by_tens(numbers: range, cache: EmbeddingCache, pipe: Connection) -> None:
    for n in numbers[::10]:
        cache.put(pairs(range(n, n + 10)))


def make_anew(numbers: range, cache: EmbeddingCache, pipe: Connection) -> None:
    assert not right(cache, numbers)
    cache.put(pairs(numbers))
    pipe.send(len(right(cache, numbers)))


def test_what_is_put_is_got_by_every_process(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path / "e", LARGE)
    cache.put(pairs(range(100)))
    assert right(cache, range(110)) == list(range(100)) and len(cache) == 100
    cache.put(pairs(range(100)))
    assert len(cache) == 100
    assert other(tmp_path / "e", partial(count, range(110))).pipe.recv() == 100
    cache.close()
    again = EmbeddingCache(tmp_path / "e", LARGE)
    assert len(right(again, range(100))) == 100
    again.close()


def test_what_cannot_be_an_embedding_counts_as_missing_and_is_replaced(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path / "e", LARGE)
    cache.put([(key(1), np.zeros(DIM)), (key(2), np.full(DIM, np.nan)), (key(3), 3 * value(3))])
    assert cache.get([key(1), key(2), key(3)]) == [None, None, None]
    cache.put(pairs([1, 2, 3]))
    assert right(cache, [1, 2, 3]) == [1, 2, 3]
    cache.close()


def test_keys_tell_apart_what_differs() -> None:
    box, recipe = ImageBox("a" * 64, (10, 20, 30, 40)), CropRecipe()
    base = key_of(box, recipe, "clip-1")
    others = [
        key_of(ImageBox("b" * 64, box.xyxy), recipe, "clip-1"),
        key_of(ImageBox(box.image, (10, 20, 30, 41)), recipe, "clip-1"),
        key_of(box, CropRecipe(0.1), "clip-1"),
        key_of(box, CropRecipe(square=False), "clip-1"),
        key_of(box, recipe, "clip-2"),
    ]
    assert len({base, *others}) == 6 and len(base) == 20
    assert key_of(ImageBox(box.image, (10.2, 19.9, 30.4, 40.1)), recipe, "clip-1") == base, "the same crop"


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    writers = [other(tmp_path / "e", partial(write_when_told, range(begin, begin + 300))) for begin in (0, 200)]
    for writer in writers:
        writer.pipe.send("go")
    assert [writer.ended() for writer in writers] == [0, 0]
    cache = EmbeddingCache(tmp_path / "e", LARGE)
    assert right(cache, range(500)) == list(range(500)) and len(cache) == 500
    cache.close()


def test_a_writer_that_is_killed_leaves_every_value_right(tmp_path: Path) -> None:
    """Killed at some point of a write, many times over; another process reads and writes meanwhile."""
    cache = EmbeddingCache(tmp_path / "e", LARGE)
    for turn in range(6):
        begin = 10_000 * turn
        writer = other(tmp_path / "e", partial(write_on_and_on, begin))
        time.sleep(0.05 + 0.03 * turn)
        told = max([begin, *writer.killed()])
        there = right(cache, range(begin, told + 40))
        assert there[: told - begin] == list(range(begin, told)), "what was told as written is there"
        assert len(there) % 20 == 0, "a write is there whole or not at all"
        cache.put(pairs([9_999_000 + turn]))
        assert right(cache, [9_999_000 + turn]), "the lock went with its holder"
    cache.close()


def test_a_reader_that_is_killed_does_not_keep_the_cache_full(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path / "e", LEAST_BYTES)
    cache.put(pairs(range(50)))
    reader = other(tmp_path / "e", read_and_stay, LEAST_BYTES)
    assert reader.pipe.recv() == "in"
    reader.killed()
    for begin in range(1000, 5000, 40):
        cache.put(pairs(range(begin, begin + 40)))
        assert len(right(cache, range(begin, begin + 40))) == 40
    cache.close()


def test_reading_while_another_process_writes(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path / "e", LEAST_BYTES)
    writer = other(tmp_path / "e", partial(write_by_tens, range(4000)), LEAST_BYTES)
    reads = 0
    while writer.process.is_alive():
        right(cache, np.random.default_rng(reads).integers(0, 4000, 40).tolist())
        reads += 1
    assert writer.ended() == 0 and reads > 5
    assert len(right(cache, range(3900, 4000))) == 100
    cache.close()


def test_the_bound_holds_and_the_oldest_go_first(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path / "e", LEAST_BYTES)
    cache.put(pairs(range(50)))
    kept = cache.get([key(0)])[0]
    dropped = 0
    for begin in range(0, 4000, 50):
        cache.put(pairs(range(begin, begin + 50)))
        there = right(cache, range(begin + 50))
        assert there == list(range(there[0], begin + 50)), "only the oldest are missing"
        dropped = there[0]
    assert dropped > 2000 and len(cache) > 200
    assert len(cache) * 2 * DIM <= LEAST_BYTES
    assert (tmp_path / "e" / "data.mdb").stat().st_size <= 2 * LEAST_BYTES
    assert kept is not None and (kept == value(0)).all(), "what was got does not change with the file"
    cache.close()


def test_more_than_the_map_holds_is_not_kept_and_harms_nothing(tmp_path: Path, caplog: Any) -> None:
    cache = EmbeddingCache(tmp_path / "e", LEAST_BYTES)
    cache.put(pairs(range(10)))
    with caplog.at_level(logging.WARNING, embeddings.__name__):
        cache.put(pairs(range(100, 3000)))
    assert "not kept" in caplog.text and not right(cache, range(100, 3000))
    cache.put(pairs(range(5000, 5050)))
    assert len(right(cache, range(5000, 5050))) == 50
    cache.close()


@pytest.mark.parametrize("damage", ["noise", "zeros", "cut", "cut early", "text", "empty"])
def test_a_damaged_file_is_made_anew(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "e"
    cache = EmbeddingCache(folder, LARGE)
    cache.put(pairs(range(200)))
    cache.close()
    whole = (folder / "data.mdb").read_bytes()
    content = {
        "noise": os.urandom(len(whole)),
        "zeros": bytes(len(whole)),
        "cut": whole[: len(whole) // 2],
        "cut early": whole[:5000],
        "text": b"not a database",
        "empty": b"",
    }[damage]
    (folder / "data.mdb").write_bytes(content)
    # in a process of its own: LMDB reads through a memory map, and a page that is not there is a SIGBUS
    process = other(folder, partial(make_anew, range(200)))
    assert process.pipe.recv() == 200 and process.ended() == 0
    assert damage == "empty" or any(".damaged-" in path.name for path in folder.iterdir())


def test_a_damaged_page_takes_only_its_own_values(tmp_path: Path, caplog: Any) -> None:
    folder = tmp_path / "e"
    cache = EmbeddingCache(folder, LARGE)
    cache.put(pairs(range(400)))
    cache.close()
    whole = (folder / "data.mdb").read_bytes()
    place = whole.find(value(200).tobytes()) // 4096 * 4096
    (folder / "data.mdb").write_bytes(whole[:place] + bytes(4096) + whole[place + 4096 :])
    cache = EmbeddingCache(folder, LARGE)
    with caplog.at_level(logging.WARNING, embeddings.__name__):
        there = right(cache, range(400))
    assert 200 not in there and len(there) > 380
    assert str(folder) in caplog.text
    cache.put(pairs(range(1000, 1010)))
    cache.close()
