"""A training whose processes are killed, or that is cancelled, in the middle: what it had done stays done."""

from __future__ import annotations

import os
import signal
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from threadpoolctl import threadpool_limits

from tator_ml.engine.client import EngineClient
from tator_ml.engine.head import WEIGHTS_FILE
from tator_ml.engine.messages import EmbedAsk, Embedded
from tator_ml.jobs import cancel
from tator_ml.learning.registry import HeadEntry
from tator_ml.learning.stores import head_registry, image_store
from tator_ml.running.processes import same_process, started
from tator_sdk.requests import HeadTraining
from tator_sdk.settings import Settings
from tests.jobs.conftest import until
from tests.training.conftest import Training
from training.clip.train import train
from training.job import LocalJob

EMBEDDING, FITTING = "embedding boxes", "fitting"


@dataclass
class Undisturbed:
    """What a training makes that nobody disturbs, in a home of its own."""

    settings: Settings
    request: HeadTraining
    entry: HeadEntry


@pytest.fixture(scope="module")
def undisturbed(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    settings = Settings(home=tmp_path_factory.mktemp("u"), device="cpu", torch_threads=1)
    request = HeadTraining(images_path=pictures, batch=8)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the engine beside it
    with threadpool_limits(1, "blas"):
        result = train(request, settings, LocalJob(settings, "undisturbed"))
    torch.set_num_threads(threads)
    return Undisturbed(settings, request, head_registry(settings).get(result["version"]))


def weights(entry: HeadEntry) -> bytes:
    return (entry.folder / WEIGHTS_FILE).read_bytes()


@dataclass
class NeverAsked:
    """Stands for an encoder whose embeddings are all known."""

    version: str

    def embed(self, ask: EmbedAsk) -> Embedded:
        raise AssertionError("an embedding is made anew")

    def encoder_version(self, name: str) -> str:
        return self.version


@pytest.mark.faults
def test_a_training_goes_on_after_kill_9_to_the_same_head(training: Training, undisturbed: Undisturbed) -> None:
    heads, before = training.heads(), training.cached()
    worker = training.worker()
    made = training.train(undisturbed.request)
    hit = training.middle(made.id, EMBEDDING)
    (horse,) = psutil.Process(worker.pid).children()
    began = started(horse)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait(10)
    until(lambda: same_process(horse.pid, began) is None, 5)
    kept = training.cached() - before
    assert kept >= hit.done and training.records.get(made.id).status == "running" and training.heads() == heads

    training.worker()
    begun = time.monotonic()
    until(lambda: training.records.get(made.id).attempt == 2, 60)
    assert time.monotonic() - begun < 60
    record = training.ends(made.id, 60)
    assert (record.status, record.attempt) == ("done", 2), record.error
    (entry,) = (one for one in training.heads() if one not in heads)
    assert record.result is not None and entry.version == record.result["version"]
    assert entry.report["embedded_anew"] == hit.total - kept
    assert "attempt 2 begins" in training.records.log_lines(made.id)

    mine, theirs = entry.head(), undisturbed.entry.head()
    assert (mine.classes, mine.encoder, mine.threshold) == (theirs.classes, theirs.encoder, theirs.threshold)
    np.testing.assert_allclose(mine.weight, theirs.weight, atol=1e-3)
    np.testing.assert_allclose(mine.bias, theirs.bias, atol=1e-3)

    # what the killed process wrote is whole: nothing is missing, and the same head comes of it
    with closing(EngineClient(training.settings, image_store(training.settings))) as engine:
        again = train(undisturbed.request, training.settings, LocalJob(training.settings, "again"), engine)
    repeated = head_registry(training.settings).get(again["version"])
    assert repeated.report["embedded_anew"] == 0 and weights(repeated) == weights(entry)


def test_all_embeddings_known_nothing_is_computed_and_the_head_is_the_same(undisturbed: Undisturbed) -> None:
    settings, encoder = undisturbed.settings, undisturbed.entry.head().encoder
    assert undisturbed.entry.report["embedded_anew"] > 1000
    result = train(undisturbed.request, settings, LocalJob(settings, "again"), NeverAsked(encoder))
    entry = head_registry(settings).get(result["version"])
    assert entry.report["embedded_anew"] == 0 and entry.version != undisturbed.entry.version
    assert weights(entry) == weights(undisturbed.entry)
    one, other = entry.head(), undisturbed.entry.head()
    assert (one.temperature, one.threshold, one.margin) == (other.temperature, other.threshold, other.margin)


@pytest.mark.faults
def test_a_killed_engine_fails_the_training_with_a_sentence(training: Training, pictures: Path) -> None:
    request = HeadTraining(images_path=pictures, batch=8, crop_margin=0.12)  # other crops: nothing is known yet
    heads, before = len(training.heads()), training.cached()
    training.worker(TATOR_ENGINE_PATIENCE_SECONDS="1")
    made = training.train(request)
    hit = training.middle(made.id, EMBEDDING)
    os.kill(training.engine(), signal.SIGKILL)
    record = training.ends(made.id, 20)
    assert (record.status, record.attempt) == ("failed", 1)
    assert record.error is not None and "Tator's engine" in record.error and "tator up" in record.error
    assert not any("Traceback" in line for line in training.records.log_lines(made.id))
    kept = training.cached() - before
    assert kept >= hit.done and len(training.heads()) == heads

    training.revive_engine()
    again = training.ends(training.train(request).id, 60)
    assert again.status == "done" and again.result is not None, again.error
    assert len(training.heads()) == heads + 1
    report = head_registry(training.settings).get(again.result["version"]).report
    assert report["embedded_anew"] == hit.total - kept


@pytest.mark.faults
def test_a_training_waits_for_an_engine_that_is_started_again(training: Training, pictures: Path) -> None:
    request = HeadTraining(images_path=pictures, batch=8, crop_margin=0.14)
    training.worker()
    made = training.train(request)
    training.middle(made.id, EMBEDDING)
    os.kill(training.engine(), signal.SIGKILL)
    training.revive_engine()
    record = training.ends(made.id, 90)
    assert (record.status, record.attempt) == ("done", 1), record.error


@pytest.mark.parametrize("step", [EMBEDDING, FITTING])
def test_a_cancelled_training_registers_nothing(training: Training, pictures: Path, step: str) -> None:
    asked = {
        EMBEDDING: {"crop_margin": 0.16},
        FITTING: {"solver": "sag", "max_iter": 100_000, "tolerance": 1e-300},
    }
    request = HeadTraining(images_path=pictures, batch=8, **asked[step])  # type: ignore[arg-type]
    heads = len(training.heads())
    training.worker()
    made = training.train(request)
    training.middle(made.id, step, 0.25 if step == EMBEDDING else 1e-4)
    begun = time.monotonic()
    assert cancel(training.settings, made.id).status == "running"
    record = training.ends(made.id, 10)
    assert time.monotonic() - begun < 5
    assert (record.status, record.attempt, record.what, record.result) == ("cancelled", 1, step, None)
    assert len(training.heads()) == heads
