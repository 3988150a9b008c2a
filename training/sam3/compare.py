"""A tuned SAM 3 and the active one, asked by the same phrases about the same pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tator_ml.sam3.registry import Sam3Entry
from tator_sdk.sam3_request import Sam3Training
from training.gate import Decision
from training.job import Job
from training.samples import Samples, readable
from training.sam3.evaluate import evaluate
from training.sam3.gate import decide
from training.sam3.scores import Tally, constant_tally
from training.tuning import release_memory


def compare(
    candidate: Path, active: Path, active_entry: Sam3Entry, samples: Samples, phrases: Mapping[str, tuple[str, ...]],
    request: Sam3Training, device: str, job: Job,
) -> Decision:  # fmt: skip
    """Ask both about held-out pictures that neither has learned from, and decide.

    Args:
        candidate: folder of the new model.
        active: folder of the active one.
        active_entry: of the registry; what it has learned from is not asked about.
        samples: whose held-out pictures are asked about.
        phrases: of each class; the first one asks.
        request: how many pictures, and the seed.
        device: to compute on.
        job: told how far it is.

    Raises:
        TatorError: one of them cannot be loaded.
    """
    learned = {one["image"] for one in active_entry.examples() if not one["held_out"]}
    unseen = [sample for sample in samples.held_out if sample.image not in learned]
    fair = readable(unseen, request.compare_pictures, job.log)

    def ask(folder: Path, name: str) -> Tally:
        job.progress(0, len(fair), f"loading {name}")
        tally = evaluate(
            folder, fair, samples.classes, phrases, device,
            step=lambda done, total: job.progress(done, total, f"asking {name}"), batch=request.batch,
        )  # fmt: skip
        release_memory()
        return tally

    mine, theirs = ask(candidate, "the new model"), ask(active, "the active model")
    return decide(mine, theirs, constant_tally(samples.train, fair, samples.classes), request.seed)
