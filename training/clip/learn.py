"""Embeddings with labels → a calibrated head with its metrics. Knows neither Label Studio nor jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from tator_ml.engine.crops import CropRecipe
from tator_ml.engine.head import Head
from tator_sdk.errors import TatorError
from tator_sdk.requests import HeadTraining
from training.clip.calibration import Silence, calibrate, choose_silence, class_centers, scores_of, strangers
from training.clip.metrics import macro_f1, measure
from training.clip.regression import Linear, Options, fit, loss
from training.clip.split import split_by_image
from training.clip.weights import class_weights, hard_examples, mining_iterations

Trace = Callable[[dict[str, float]], None]
"""Is given a point of the curve after each iteration; may raise to stop."""


class TooFewExamples(TatorError):
    """Nothing can be learned; the message says what to label."""


@dataclass(frozen=True, eq=False)
class Examples:
    """What is learned from.

    Attributes:
        embeddings: (N, D) float32 of L2 norm 1.
        labels: class of each, ``images`` the content hash of its picture.
        classes: all classes of the project, in order.
        background: which of them means "none of these", or None.
    """

    embeddings: NDArray[np.float32]
    labels: Sequence[str]
    images: Sequence[str]
    classes: Sequence[str]
    background: str | None = None


@dataclass(frozen=True, eq=False)
class Learned:
    """A head, and how it came about.

    Attributes:
        head: calibrated, with threshold and margin; its version is still to be given.
        held_out: (N,) which examples it did not learn from; ``used`` which it was taught or tested with at all.
        metrics: on held-out and training boxes.
        notes: what a person should know, in sentences.
    """

    head: Head
    held_out: NDArray[np.bool_]
    used: NDArray[np.bool_]
    metrics: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def learn(
    examples: Examples,
    request: HeadTraining,
    encoder: str,
    encoder_name: str,
    trace: Trace | None = None,
) -> Learned:
    """Fit a head.

    Args:
        examples: with their embeddings.
        request: all settings.
        encoder: version of what embedded them; ``encoder_name`` loads it.
        encoder_name: for ``encoders.load``.
        trace: is shown each iteration.

    Raises:
        TooFewExamples: fewer than two classes have enough examples.
    """
    used, classes, notes = _enough(examples, request.min_per_class)
    labels = np.array([classes.index(label) if label in classes else -1 for label in examples.labels], np.int64)
    held_out = np.zeros(len(labels), bool)
    chosen = np.flatnonzero(used)
    held_out[chosen], said = split_by_image(
        [examples.images[row] for row in chosen],
        [examples.labels[row] for row in chosen],
        request.test_share, request.seed, request.min_per_class,
    )  # fmt: skip
    notes += said
    train, test = used & ~held_out, used & held_out
    missing = [name for index, name in enumerate(classes) if not (labels[train] == index).any()]
    if missing:  # cannot happen while min_per_class pictures go back; kept for a class on one picture with others
        raise TooFewExamples(f"'{missing[0]}' has no example to learn from; label more of it.")

    features, truth = examples.embeddings[train], labels[train]
    seen, answer = examples.embeddings[test], labels[test]
    options = Options(request.solver, request.inverse_regularization, request.max_iter, request.tolerance, request.seed)
    curve = _Curve(trace, features, truth, seen, answer) if trace else None
    linear, weights, mined, said = _fit(features, truth, len(classes), options, request, curve)
    notes += said

    recipe = CropRecipe(request.crop_margin, request.crop_square)
    head = Head(
        classes=tuple(classes),
        weight=linear.weight.astype(np.float32),
        bias=linear.bias.astype(np.float32),
        temperature=1.0, threshold=0.0, margin=0.0,
        encoder=encoder, recipe=recipe, version="unregistered", encoder_name=encoder_name,
        background=examples.background if examples.background in classes else None,
        centers=class_centers(features, truth, len(classes)),
    )  # fmt: skip
    head, silence = _calibrated(head, features, truth, weights, seen, answer, linear, options, request)
    if silence.note:
        notes.append(silence.note)
    metrics = {
        "held_out": {**measure(head, seen, answer), "images": len({examples.images[r] for r in np.flatnonzero(test)})},
        "training": {
            "boxes": int(train.sum()),
            "images": len({examples.images[row] for row in np.flatnonzero(train)}),
            **_fitted(linear, features, truth, len(classes)),
            "hard_examples": mined,
        },
        "expected_precision": silence.precision,
        "expected_answered": silence.answered,
        "precision_reached": silence.reached,
    }
    return Learned(head, held_out, used, metrics, notes)


def _fit(
    features: NDArray[np.float32], truth: NDArray[np.int64], classes: int, options: Options, request: HeadTraining,
    curve: _Curve | None,
) -> tuple[Linear, NDArray[np.float64], int, list[str]]:  # fmt: skip
    """Fit, and where it is asked for once more with hard examples counting more.

    Returns:
        The fit, the examples' weights, how many count more, and what else there is to know, in sentences.
    """
    weights = class_weights(truth, classes, request.class_weight)
    linear = fit(features, truth, classes, options, weights, watch=curve)
    notes = [linear.note] if linear.note else []
    if not linear.converged:
        notes.append(f"the fit stopped after {linear.iterations} iterations without converging; raise max_iter")
    if not request.hard_example_mining:
        return linear, weights, 0, notes
    hard = hard_examples(softmax(linear.logits(features), axis=1), truth, request)
    weights = weights * hard
    again = replace(options, max_iter=mining_iterations(request.max_iter))
    linear = fit(features, truth, classes, again, weights, linear, curve)
    return linear, weights, int((hard > 1).sum()), notes


def _fitted(linear: Linear, features: NDArray[np.float32], truth: NDArray[np.int64], classes: int) -> dict[str, Any]:
    """How well it knows what it was fitted on."""
    answers = linear.logits(features).argmax(1)
    return {
        "accuracy": round(float((answers == truth).mean()), 4),
        "macro_f1": round(macro_f1(truth, answers, classes), 4),
        "iterations": linear.iterations,
        "converged": linear.converged,
    }


def _calibrated(
    head: Head, features: NDArray[np.float32], truth: NDArray[np.int64], weights: NDArray[np.float64],
    seen: NDArray[np.float32], answer: NDArray[np.int64], linear: Linear, options: Options, request: HeadTraining,
) -> tuple[Head, Silence]:  # fmt: skip
    head = calibrate(head, seen, answer)
    known = ~np.isin(answer, [] if head.background is None else [head.classes.index(head.background)])
    unknown = strangers(head, features, truth, linear, options) if request.unknown_share else None
    scores = scores_of(head, seen[known], answer[known])
    silence = choose_silence(scores, unknown, request.precision, request.unknown_share)
    head = replace(head, threshold=silence.threshold, margin=silence.margin, familiarity=silence.familiarity)
    return head, silence


def _enough(examples: Examples, fewest: int) -> tuple[NDArray[np.bool_], list[str], list[str]]:
    """Examples of classes that have enough of them, those classes in the project's order, and what was left out."""
    counts = Counter(examples.labels)
    known = [*examples.classes, *sorted(set(counts) - set(examples.classes))]
    classes = [name for name in known if counts[name] >= fewest]
    notes = [
        f"'{name}' is left out: it has {counts[name]} examples of at least {fewest}"
        for name in known
        if counts[name] < fewest and name != examples.background
    ]
    real = [name for name in classes if name != examples.background]
    if len(classes) < 2 or not real:
        raise TooFewExamples(
            f"A head needs at least two classes with {fewest} examples each; there are {len(real)}: "
            "label a few more objects and train again."
        )
    return np.array([label in classes for label in examples.labels], bool), classes, notes


class _Curve:
    """Turns coefficients after an iteration into a point of the curve."""

    def __init__(
        self, trace: Trace | None, features: NDArray[np.float32], truth: NDArray[np.int64],
        seen: NDArray[np.float32], answer: NDArray[np.int64],
    ) -> None:  # fmt: skip
        self._trace = trace
        self._features, self._truth, self._seen, self._answer = features, truth, seen, answer
        self._before: Linear | None = None
        self._loss_before = float("nan")
        self._iterations = 0

    def __call__(self, linear: Linear) -> None:
        if self._trace is None:
            return
        self._iterations = max(self._iterations + 1, linear.iterations)  # a refit counts on from the first fit
        now = loss(linear, self._features, self._truth)
        point = {
            "iteration": float(self._iterations),
            "train_loss": now,
            "train_accuracy": float((linear.logits(self._features).argmax(1) == self._truth).mean()),
            "loss_change": now - self._loss_before,
        }
        if len(self._answer):
            point["validation_loss"] = loss(linear, self._seen, self._answer)
            point["validation_accuracy"] = float((linear.logits(self._seen).argmax(1) == self._answer).mean())
        if self._before is not None:
            point["coefficient_change"] = float(np.abs(linear.weight - self._before.weight).max())
        self._before, self._loss_before = linear, now
        self._trace(point)
