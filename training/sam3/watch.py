"""Measures a model in training, keeps the weights that were best, and says when it gets no better."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from training.checkpoints import step_of
from training.job import Job
from training.sam3.checkpoints import LEARNED
from training.sam3.scores import Scores
from training.sam3.weights import save_learned

CURVE = "curve.jsonl"
"""In a job's folder: a point a line, as it is told to the job."""


class Watch:
    """The curve and the evaluations of a training.

    Attributes:
        evaluations: in order: step, round and figures.
    """

    def __init__(
        self, job: Job, patience: int, evaluations: Sequence[Mapping[str, Any]], step: int, writes: bool = True
    ) -> None:
        """Prepare, and forget what lies beyond a step: it will be done again.

        Args:
            job: is told.
            patience: evaluations without progress; 0 for any number.
            evaluations: up to the step.
            step: of the optimiser, that were done.
            writes: the curve; of several processes one does.
        """
        self.evaluations = [dict(one) for one in evaluations]
        self._job = job
        self._patience = patience
        self._curve = job.folder / CURVE
        if not writes:
            return
        lines = self._curve.read_text().splitlines() if self._curve.exists() else []
        kept = [line for line in lines if _step(line) <= step]
        self._curve.write_text("".join(f"{line}\n" for line in kept))

    def point(self, **values: float | int | str) -> None:
        """Add a point to the curve."""
        self._job.point(**values)
        with self._curve.open("a") as file:
            file.write(json.dumps(values) + "\n")

    def measured(
        self, step: int, turn: float, scores: Scores, learned: Mapping[str, nn.Parameter], scale: float
    ) -> None:
        """Take in an evaluation, and keep the weights if they are the best so far.

        Args:
            step: of the optimiser.
            turn: rounds over the pictures.
            scores: on held-out pictures.
            learned: weights by name.
            scale: of an adapter.
        """
        one = {"step": step, "round": round(turn, 2), **scores.as_json()}
        self.evaluations.append(one)
        if self.best() is one:
            self._keep(step, learned, scale)
        self.point(step=step, ap=scores.ap, ap50=scores.ap50, ap75=scores.ap75, ar=scores.ar)
        self._job.log(
            f"step {step}: AP {scores.ap:.3f}, AP50 {scores.ap50:.3f}, AP75 {scores.ap75:.3f}, AR {scores.ar:.3f} on "
            f"{scores.pictures} held-out pictures"
        )

    def best(self) -> dict[str, Any]:
        """The evaluation with the best figures, the earliest of several; while there are none, the last one."""
        return best_of(self.evaluations)

    def kept(self) -> Path:
        """The file of the best weights."""
        return self._job.folder / f"best-{self.best()['step']}" / LEARNED

    def out_of_patience(self) -> bool:
        """Whether the last evaluations were no progress."""
        if not self._patience or not self.evaluations:
            return False
        return len(self.evaluations) - 1 - self.evaluations.index(self.best()) >= self._patience

    def _keep(self, step: int, learned: Mapping[str, nn.Parameter], scale: float) -> None:
        """Write the weights; those that were best before go once these are there."""
        folder = self._job.folder / f"best-{step}"
        partial = folder.with_name(f".{folder.name}.part")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_learned(partial / LEARNED, learned, scale)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
        # a checkpoint before this step may still count the one before as best: it goes with the next
        earlier = [one for one in self.evaluations if one["step"] < step]
        before = best_of(earlier)["step"] if earlier else step
        for other in self._job.folder.glob("best-*"):
            if step_of(other) not in {step, before}:
                shutil.rmtree(other, ignore_errors=True)


def best_of(evaluations: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """See :meth:`Watch.best`."""
    goodness = [(one["ap"], one["ap50"], one["ar"]) for one in evaluations]
    if not any(any(one) for one in goodness):
        return evaluations[-1]
    return evaluations[max(range(len(goodness)), key=lambda index: goodness[index])]


def _step(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # cut short by a kill
        return 1 << 62
