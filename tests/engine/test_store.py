"""Embeddings on disk: what comes back, what is dropped, what stays within the bound."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tator_ml.engine import store as store_module
from tator_ml.engine.segmenters.base import Embedding
from tator_ml.engine.store import EmbeddingStore

MODEL = "sam9-tiny-0123abcd"


def name(number: int) -> str:
    return f"{number:064x}"


def embedding(seed: int = 0, model: str = MODEL, side: int = 16) -> Embedding:
    rng = torch.Generator().manual_seed(seed)
    tensors = {"image_embed": torch.randn(1, 8, side, side, generator=rng), "skip": torch.randn(1, 3, 5, generator=rng)}
    return Embedding(tensors, (640 + seed, 480), model)


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingStore:
    return EmbeddingStore(tmp_path / "warm", 10**9)


def file_of(store: EmbeddingStore, number: int) -> Path:
    path = store._path(MODEL, name(number))
    assert path is not None
    return path


def test_what_is_kept_comes_back_in_half_precision(store: EmbeddingStore) -> None:
    kept = embedding()
    assert store.get(MODEL, name(1)) is None and not store.contains(MODEL, name(1))
    assert store.put(name(1), kept)
    found = store.get(MODEL, name(1))
    assert found is not None and found.size_wh == kept.size_wh and found.model == MODEL
    assert found.tensors.keys() == kept.tensors.keys()
    for key, tensor in kept.tensors.items():
        assert torch.equal(found.tensors[key], tensor.half().float()) and found.tensors[key].is_contiguous()
    assert store.nbytes == file_of(store, 1).stat().st_size < 0.6 * kept.nbytes + 1000


def test_the_file_is_safetensors_as_others_read_them(store: EmbeddingStore) -> None:
    store.put(name(1), embedding())
    path = file_of(store, 1)
    assert path.parent.name == name(1)[:2] and path.parents[1].name == MODEL
    assert {key: value.dtype for key, value in load_file(path).items()} == {
        "image_embed": torch.float16,
        "skip": torch.float16,
    }
    with safe_open(path, "pt") as opened:
        assert opened.metadata()["model"] == MODEL and opened.metadata()["size_wh"] == "[640, 480]"


def test_tensors_that_half_precision_cannot_hold_stay_as_they_are(store: EmbeddingStore) -> None:
    tensors = {
        "large": torch.tensor([[1e6, -3.0]]),
        "whole": torch.tensor([[2**40, -7]]),
        "flags": torch.tensor([[True, False, True]]),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "half": torch.tensor([0.1], dtype=torch.float16),
        "brain": torch.tensor([0.5, 3.0], dtype=torch.bfloat16),
        "double": torch.tensor([0.25], dtype=torch.float64),
        "none": torch.zeros(1, 0),
        "turned": torch.arange(6.0).reshape(2, 3).T,
    }
    store.put(name(1), Embedding(tensors, (3, 2), MODEL))
    found = store.get(MODEL, name(1))
    assert found is not None
    for key, tensor in tensors.items():
        assert found.tensors[key].dtype == tensor.dtype and torch.equal(found.tensors[key], tensor), key


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.3, 0.5, 0.9, 0.999])
def test_a_flipped_bit_anywhere_is_noticed_and_the_file_is_dropped(
    store: EmbeddingStore, share: float, caplog: pytest.LogCaptureFixture
) -> None:
    store.put(name(1), embedding())
    path = file_of(store, 1)
    data = bytearray(path.read_bytes())
    data[int(share * len(data))] ^= 4
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        assert store.get(MODEL, name(1)) is None
    assert "made anew" in caplog.text and not path.exists()
    store.put(name(1), embedding())
    assert store.get(MODEL, name(1)) is not None


@pytest.mark.parametrize("length", [0, 4, 8, 50, 1000, -1])
def test_a_cut_file_is_dropped(store: EmbeddingStore, length: int) -> None:
    store.put(name(1), embedding())
    path = file_of(store, 1)
    path.write_bytes(path.read_bytes()[:length])
    assert store.get(MODEL, name(1)) is None and not path.exists()


@pytest.mark.parametrize("content", [b"\xff" * 8, b"not an embedding", bytes(4096), b"\x02\0\0\0\0\0\0\0{}"])
def test_any_other_file_is_dropped(store: EmbeddingStore, content: bytes) -> None:
    file_of(store, 1).parent.mkdir(parents=True)
    file_of(store, 1).write_bytes(content)
    assert store.get(MODEL, name(1)) is None and not file_of(store, 1).exists()


def test_a_file_under_another_models_name_is_dropped(store: EmbeddingStore) -> None:
    store.put(name(1), embedding())
    other = store._path("other-1", name(1))
    assert other is not None
    other.parent.mkdir(parents=True)
    other.write_bytes(file_of(store, 1).read_bytes())
    assert store.get("other-1", name(1)) is None and store.get(MODEL, name(1)) is not None


def test_names_cannot_leave_the_folder(store: EmbeddingStore, tmp_path: Path) -> None:
    for image in ("../../etc/passwd", "a" * 63, "A" * 64, ""):
        assert not store.put(image, embedding()) and store.get(MODEL, image) is None
    for model in ("../../../up", "..", "/etc", "a/../../b"):
        assert store.put(name(1), embedding(model=model)) and store.get(model, name(1)) is not None
    assert {path.name for path in tmp_path.iterdir()} == {"warm"}


def test_used_longest_ago_goes_first(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path, 10**9)
    store.put(name(0), embedding())
    size = store.nbytes
    store = EmbeddingStore(tmp_path, 10 * size + size // 2)
    for number in range(10):
        store.put(name(number), embedding())
        os.utime(file_of(store, number), (1000 + number, 1000 + number))
    assert store.get(MODEL, name(0)) is not None, "which counts as used now"
    store.put(name(10), embedding())
    held = [number for number in range(11) if store.contains(MODEL, name(number))]
    assert held == [0, 3, 4, 5, 6, 7, 8, 9, 10]
    assert store.nbytes == 9 * size <= store.max_bytes


def test_writing_the_same_again_takes_no_more_room(store: EmbeddingStore) -> None:
    for _ in range(5):
        store.put(name(1), embedding())
    assert store.nbytes == file_of(store, 1).stat().st_size


def test_a_bound_of_nothing_keeps_nothing(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path / "warm", 0)
    assert not store.put(name(1), embedding()) and store.get(MODEL, name(1)) is None
    assert not (tmp_path / "warm").exists() and store.nbytes == 0


def test_pruning_by_hand_and_by_others(store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "RECOUNT_SECONDS", 0.0)
    for number in range(4):
        store.put(name(number), embedding())
    file_of(store, 1).unlink()
    assert store.get(MODEL, name(1)) is None and store.get(MODEL, name(2)) is not None
    assert store.nbytes == 3 * file_of(store, 0).stat().st_size


def test_what_a_crash_left_half_written_is_no_embedding_and_goes(store: EmbeddingStore) -> None:
    store.put(name(1), embedding())
    old, new = (file_of(store, 1).parent / part for part in (".old", ".new"))
    for part in (old, new):
        part.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    again = EmbeddingStore(store._folder, 10**9)
    assert again.nbytes == file_of(store, 1).stat().st_size
    assert not old.exists() and new.exists(), "somebody writes the newer one now"


def test_a_full_disk_is_said_and_harms_nothing(
    store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert not store.put(name(1), embedding())
    assert "No space left" in caplog.text
    assert not list(file_of(store, 1).parent.iterdir())


def test_threads_that_write_read_and_prune_meet_no_half_file(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path, 60_000)
    wrong: list[object] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(60):
            number = int(rng.integers(12))
            store.put(name(number), embedding(number))
            found = store.get(MODEL, name(int(rng.integers(12))))
            if found is not None:
                number = found.size_wh[0] - 640
                if not torch.equal(found.tensors["skip"], embedding(number).tensors["skip"].half().float()):
                    wrong.append(number)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors")) <= 60_000


WRITING = """
import sys
from pathlib import Path
from tests.engine.test_store import EmbeddingStore, embedding, name
store = EmbeddingStore(Path(sys.argv[1]), 10**9)
print("started", flush=True)
for number in range(100_000):
    store.put(name(number % 50), embedding(number % 50, side=128))
"""


def test_a_writer_that_is_killed_leaves_no_half_embedding(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    writer = subprocess.Popen([sys.executable, "-c", WRITING, str(tmp_path)], stdout=subprocess.PIPE, cwd=root)
    assert writer.stdout is not None and writer.stdout.readline() == b"started\n"
    time.sleep(0.3)
    writer.kill()
    writer.wait()
    store = EmbeddingStore(tmp_path, 10**9)
    files = list(tmp_path.rglob("*.safetensors"))
    assert files
    assert all(store.get(MODEL, path.stem) is not None for path in files)


def test_a_claim_waits_for_the_one_before_it_and_ends_with_its_process(store: EmbeddingStore) -> None:
    script = f"""
import pathlib, sys, time
from tator_ml.engine.store import EmbeddingStore
with EmbeddingStore(pathlib.Path({str(store._folder)!r}), 10**9).claim({MODEL!r}, {name(1)!r}):
    print("claimed", flush=True)
    time.sleep(60)
"""
    other = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "claimed\n"
    had = threading.Event()

    def claim() -> None:
        with store.claim(MODEL, name(1)):
            had.set()

    thread = threading.Thread(target=claim)
    thread.start()
    assert not had.wait(0.5)
    other.kill()
    other.wait(10)
    assert had.wait(10)
    thread.join()


def test_nothing_is_claimed_where_nothing_is_kept(tmp_path: Path) -> None:
    with EmbeddingStore(tmp_path / "warm", 0).claim(MODEL, name(1)):
        assert not (tmp_path / "warm").exists()
