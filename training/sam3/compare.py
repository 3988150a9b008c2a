"""A tuned SAM 3 and the active one, asked by the same phrases about the same pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tator_ml.sam3.registry import Sam3Entry
from tator_sdk.sam3_request import Sam3Training
from training.gate import Decision
from training.job import Job
from training.sam3.evaluate import evaluate, truth_of
from training.sam3.gate import decide
from training.sam3.phrases import Phrases
from training.sam3.scores import Found, Tally, tally
from training.samples import Sample, Samples, readable
from training.tuning import release_memory


def compare(
    candidate: Path, active: Path, entry: Sam3Entry, samples: Samples, phrases: Phrases, request: Sam3Training,
    device: str, half: bool, job: Job,
) -> Decision:  # fmt: skip
    """Ask both about held-out pictures that neither has learned from, and decide.

    Args:
        candidate: folder of the new model.
        active: folder of the active one.
        entry: of the active one; what it has learned from is not asked about.
        samples: whose held-out pictures are asked about.
        phrases: of each class; the first one asks.
        request: how many pictures, and the seed.
        device: to compute on.
        half: whether in bf16.
        job: told how far it is.

    Raises:
        TatorError: one of them cannot be loaded.
    """
    learned = {one["image"] for one in entry.examples() if not one["held_out"]}
    unseen = [sample for sample in samples.held_out if sample.image not in learned]
    fair = readable(unseen, request.compare_pictures, job.log)

    def ask(folder: Path, name: str) -> Tally:
        job.progress(0, len(fair), f"loading {name}")
        found = evaluate(
            folder, fair, samples.classes, phrases, device, half=half,
            step=lambda done, total: job.progress(done, total, f"asking {name}"),
        )  # fmt: skip
        release_memory()
        return found

    mine, theirs = ask(candidate, "the new model"), ask(active, "the active model")
    return decide(mine, theirs, constant_tally(samples.train, fair, samples.classes), request.seed)


def constant_tally(learned: Sequence[Sample], asked: Sequence[Sample], classes: Sequence[str]) -> Tally:
    """What an answer that never looks would reach: of each class its median box, on every picture.

    Args:
        learned: pictures whose boxes are known.
        asked: pictures to answer for.
        classes: of the data set.
    """
    shares: dict[str, list[tuple[float, ...]]] = {name: [] for name in classes}
    for sample in learned:
        width, height = sample.size_wh
        for label, (x0, y0, x1, y1) in truth_of(sample, classes):
            shares[label].append((x0 / width, y0 / height, x1 / width, y1 / height))
    medians = {name: np.median(boxes, axis=0).tolist() for name, boxes in shares.items() if boxes}
    found: list[Found] = []
    for sample in asked:
        width, height = sample.size_wh
        found.append([
            (name, 1.0, (x0 * width, y0 * height, x1 * width, y1 * height))
            for name, (x0, y0, x1, y1) in medians.items()
        ])  # fmt: skip
    return tally([truth_of(sample, classes) for sample in asked], found, classes)
