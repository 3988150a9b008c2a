"""A whole training: examples → embeddings → head → gate → registry."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from tator_ml.engine.client import EngineAway, EngineClient
from tator_ml.engine.crops import CropRecipe
from tator_ml.engine.head import Head, HeadError
from tator_ml.engine.messages import Busy, EngineError
from tator_ml.engine.routing import RoutedEngines, open_engines
from tator_ml.images.store import ImageStore
from tator_ml.learning.embedder import Computes, Embedder, Embeddings, LocalEncoder
from tator_ml.learning.registry import HeadEntry, HeadRegistry, RegistryError
from tator_ml.learning.stores import embedding_cache, head_registry, image_store
from tator_sdk.errors import TatorError
from tator_sdk.geometry import area_xyxy
from tator_sdk.requests import HeadTraining
from tator_sdk.settings import Settings
from training.clip.dataset import BACKGROUND, Dataset, Item, read_dataset, with_background
from training.clip.gate import Decision, decide
from training.clip.learn import Examples, Learned, TooFewExamples, learn
from training.job import Job

# Half the cores: an engine computes beside the fit, and threads of OpenBLAS that wait for a core spin. On two busy
# cores a fit of 3,900 x 128 took 6.3 s with both and 0.24 s with one.
FIT_THREADS = max(1, len(os.sched_getaffinity(0)) // 2) if hasattr(os, "sched_getaffinity") else 1


def train(request: HeadTraining, settings: Settings, job: Job, computes: Computes | None = None) -> dict[str, Any]:
    """Train a head, register it, and activate it where the gate lets it.

    Args:
        request: what to learn from and how.
        settings: of this installation.
        job: takes progress, log and curve; may stop the work.
        computes: embeds boxes; by default the running engine, else an encoder in this process.

    Returns:
        Version, whether it is active, why, and the main figures, as JSON values.

    Raises:
        TatorError: in a sentence.
    """
    begun = time.monotonic()
    store = image_store(settings)
    dataset = read_dataset(request, settings, store, job)
    job.log(f"{len(dataset.items)} labelled boxes in {len(set(dataset.sizes_wh))} pictures")
    for note in dataset.notes[:50]:
        job.log(f"left out: {note}")
    if not dataset.items:
        raise TooFewExamples("There is no labelled box to learn from; label a few objects and train again.")
    dataset = with_background(dataset, request.background, request.seed)
    with ExitStack() as ends:
        if computes is None:
            computes = ends.enter_context(open_encoder(settings, store, request.device))
        return _train(request, settings, job, dataset, computes, begun)


def _train(
    request: HeadTraining, settings: Settings, job: Job, dataset: Dataset, computes: Computes, begun: float
) -> dict[str, Any]:
    """See :func:`train`; what to learn from has been read."""
    encoder_name = request.encoder or settings.encoder
    with closing(embedding_cache(settings)) as cache:
        recipe, patience = CropRecipe(request.crop_margin, request.crop_square), settings.engine_patience_seconds
        kept_in = cache if request.cache else None
        embedder = Embedder(computes, kept_in, encoder_name, recipe, request.batch, patience)
        embeddings = _embed(embedder, dataset, job)
    read_seconds = time.monotonic() - begun

    kept = np.flatnonzero(embeddings.made)
    items = [dataset.items[row] for row in kept]
    examples = Examples(
        embeddings.values[kept],
        [item.label for item in items],
        [item.box.image for item in items],
        dataset.classes,
        BACKGROUND if request.background else None,
    )
    job.progress(0, 0, "fitting")

    def trace(point: dict[str, float]) -> None:
        job.progress(int(point["iteration"]), request.max_iter, "fitting")
        job.point(**point)

    with threadpool_limits(FIT_THREADS, "blas"):
        learned = learn(examples, request, embeddings.encoder, encoder_name, trace)
    learned = replace(learned, head=replace(learned.head, areas=usual_areas(learned, items, dataset)))
    for note in learned.notes:
        job.log(note)
    job.progress(1, 1, "comparing with the active head")
    registry = head_registry(settings)
    active = _active(registry, request.project, job)
    decision = _gate(learned, examples, active, computes, dataset, items, request, settings, job)
    job.check()  # nothing is registered for a job that was cancelled, or that another attempt has
    report = {
        "request": request.model_dump(mode="json"),
        "job": job.id,
        "metrics": learned.metrics,
        "notes": [*learned.notes, *dataset.notes],
        "gate": {**decision.as_json(), "active_version": active.version if active else None},
        "encoder": embeddings.encoder,
        "seconds": {"reading_and_embedding": round(read_seconds, 2), "all": round(time.monotonic() - begun, 2)},
        "embedded_anew": embeddings.computed,
    }
    seen = _seen(items, learned)
    entry = registry.add(learned.head, request.project, report, seen)
    activated = _activate(registry, entry, request, decision, job)
    return {
        "version": entry.version,
        "activated": activated,
        "reason": decision.reason,
        "macro_f1": decision.candidate,
        "active_macro_f1": decision.active,
        "boxes": len(seen),
        "classes": len(learned.head.classes),
        "seconds": round(time.monotonic() - begun, 2),
    }


def _seen(items: Sequence[Item], learned: Learned) -> list[dict[str, Any]]:
    """The boxes that it learned from and was measured on, as they are kept beside the head."""
    return [
        {
            **item.source,
            "image": item.box.image,
            "xyxy": list(item.box.xyxy),
            "label": item.label,
            "held_out": bool(out),
        }
        for item, out, used in zip(items, learned.held_out, learned.used, strict=True)
        if used
    ]


def usual_areas(learned: Learned, items: Sequence[Item], dataset: Dataset) -> tuple[float, ...]:
    """The median share of the picture that boxes of each of the head's classes cover."""
    shares: dict[str, list[float]] = {name: [] for name in learned.head.classes}
    for item, used in zip(items, learned.used, strict=True):
        if used and item.label in shares:
            width, height = dataset.sizes_wh[item.box.image]
            shares[item.label].append(area_xyxy(item.box.xyxy) / (width * height))
    return tuple(min(max(float(np.median(found)), 1e-9), 1.0) for found in shares.values())


@contextmanager
def open_encoder(settings: Settings, store: ImageStore, device: str | None) -> Iterator[Computes]:
    """The running engine; where none answers, or a device is asked for, encoders in this process."""
    with closing(open_engines(settings, store)) as client:
        if device is None and _is_ready(client):
            yield client
            return
    yield LocalEncoder(store, device or settings.device, settings.image_max_pixels, settings.torch_threads)


def _is_ready(client: EngineClient | RoutedEngines) -> bool:
    try:
        return client.status().ready
    except EngineError:
        return False


def _embed(embedder: Embedder, dataset: Dataset, job: Job) -> Embeddings:
    embeddings = embedder.embed(
        [item.box for item in dataset.items],
        dataset.provide,
        lambda done, total: job.progress(done, total, "embedding boxes"),
    )
    job.log(f"{embeddings.computed} boxes embedded anew, {len(dataset.items) - embeddings.computed} known before")
    for image, reason in embeddings.failed.items():
        job.log(f"left out: picture {image[:12]}: {reason}")
    return embeddings


def _active(registry: HeadRegistry, project: int | None, job: Job) -> HeadEntry | None:
    if project is None:
        return None
    try:
        entry = registry.active(project)
        if entry is not None:
            entry.head()
        return entry
    except (RegistryError, HeadError) as error:
        job.log(f"the active head cannot be compared with: {error}")
        return None


def _gate(
    learned: Learned, examples: Examples, active: HeadEntry | None, computes: Computes, dataset: Dataset,
    items: Sequence[Any], request: HeadTraining, settings: Settings,
    job: Job,
) -> Decision:  # fmt: skip
    """Both heads on the pictures that are held out from both, background aside."""
    seen_before = {one["image"] for one in active.examples() if not one["held_out"]} if active else set()
    real = np.array([label != examples.background for label in examples.labels])
    fair = np.array([image not in seen_before for image in examples.images])
    rows = np.flatnonzero(learned.used & learned.held_out & real & fair)
    theirs = None
    if active is not None:
        head = active.head()
        try:
            seen, made = _embeddings_for(head, learned.head, examples, rows, computes, dataset, items, settings, job)
            theirs = _said(head, seen[made])
            rows = rows[made]  # what the active head cannot see is not counted against it
        except (EngineAway, Busy):  # the head is not gone, and not beaten either
            raise
        except TatorError as error:  # a head whose encoder is gone answers nothing either
            job.log(f"the active head {active.version} cannot be asked: {error}")
    truth = [examples.labels[row] for row in rows]
    mine = _said(learned.head, examples.embeddings[rows])
    trained_on = [examples.labels[row] for row in np.flatnonzero(learned.used & ~learned.held_out & real)]
    return decide(truth, mine, theirs, trained_on, len({examples.images[row] for row in rows}), request.seed)


def _embeddings_for(
    head: Head, new: Head, examples: Examples, rows: NDArray[np.int64], computes: Computes, dataset: Dataset,
    items: Sequence[Any], settings: Settings, job: Job,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:  # fmt: skip
    """The held-out boxes as ``head`` sees them, with its own encoder and crop; and which of them it can see."""
    if (head.encoder, head.recipe) == (new.encoder, new.recipe):
        return examples.embeddings[rows], np.ones(len(rows), bool)
    with closing(embedding_cache(settings)) as cache:
        patience = settings.engine_patience_seconds
        embedder = Embedder(computes, cache, head.encoder_name, head.recipe, patience_seconds=patience)
        embeddings = embedder.embed(
            [items[row].box for row in rows],
            dataset.provide,
            lambda done, total: job.progress(done, total, "comparing with the active head"),
        )
    if embeddings.encoder != head.encoder:
        raise HeadError(f"its encoder {head.encoder_name} is {embeddings.encoder} now, it was {head.encoder}")
    for image, reason in embeddings.failed.items():
        job.log(f"not compared: picture {image[:12]}: {reason}")
    return embeddings.values, embeddings.made


def _said(head: Head, embeddings: NDArray[np.float32]) -> list[str]:
    if not len(embeddings):
        return []
    probabilities = head.probabilities(embeddings)
    if head.background is not None:  # a real box is asked about: the best of the real classes
        probabilities[:, head.classes.index(head.background)] = -1
    return [head.classes[index] for index in probabilities.argmax(1)]


def _activate(registry: HeadRegistry, entry: HeadEntry, request: HeadTraining, decision: Decision, job: Job) -> bool:
    wanted = request.activation == "always" or (request.activation == "auto" and decision.activate)
    if request.project is None or not wanted:
        job.log(f"{entry.version} is not active: {decision.reason}")
        return False
    why = "gate" if decision.activate else "asked for"
    registry.activate(request.project, entry.version, why, decision.as_json())
    job.log(f"{entry.version} is active: {decision.reason}")
    return True
