"""How sure a head may be: a temperature for its probabilities, a threshold and margin for its silence."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from tator_ml.engine.head import Head
from training.clip.regression import Linear, Options, fit

Labels = NDArray[np.int64]
LEAST_ANSWERED = 0.5  # of the held-out boxes, where the asked precision cannot be had at any price
FEWEST = 20  # held-out boxes below which neither temperature nor threshold can be told
DEFAULT_THRESHOLD, DEFAULT_MARGIN = 0.65, 0.15  # below them the original calls an example uncertain
THRESHOLDS = np.round(np.concatenate([np.arange(0.30, 0.9, 0.03), np.arange(0.90, 1.0, 0.01)]), 2)
MARGINS = np.array([0.05, 0.15, 0.3, 0.45])
FAMILIAR = np.array([0.0, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3])
"""Shares of known boxes that are given up as too unfamiliar."""
GROUPS = 4  # of classes, each left out once to see how a head takes what it does not know
MOST_EXAMPLES = 3000  # for those fits: they estimate two thresholds, and a retrain must stay quick


@dataclass(frozen=True)
class Scores:
    """Best probability, its lead over the second, closeness to the class's centre, and whether the best is right.

    All (N,); ``group`` numbers the trials that the boxes come from.
    """

    best: NDArray[np.float64]
    lead: NDArray[np.float64]
    close: NDArray[np.float64]
    right: NDArray[np.bool_]
    group: NDArray[np.int64]


def log_loss(head: Head, embeddings: NDArray[np.floating], truth: Labels) -> float:
    """Mean negative log-likelihood of the true classes."""
    shares = head.probabilities(np.asarray(embeddings, np.float32))[np.arange(len(truth)), truth]
    return float(-np.log(shares.clip(1e-7)).mean())


def calibrate(head: Head, embeddings: NDArray[np.floating], truth: Labels) -> Head:
    """The head with the temperature under which the held-out boxes are likeliest, 0.05 to 20.

    Unchanged where there are too few of them (https://arxiv.org/abs/1706.04599). One box more than there are counts
    as of any class, as Platt's targets have it: forty right answers in a row do not prove that none is ever wrong,
    and without it the temperature would fall to its bound.
    """
    if len(truth) < FEWEST:
        return head
    logits = np.asarray(embeddings, np.float64) @ head.weight.T + head.bias
    doubt = 1 / (len(truth) + 2)

    def loss(power: float) -> float:
        logs = log_softmax(logits / np.exp(power), axis=1)
        return -float(((1 - doubt) * logs[np.arange(len(truth)), truth] + doubt * logs.mean(1)).mean())

    found = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded")
    return replace(head, temperature=round(float(np.exp(found.x)), 4))


def scores_of(head: Head, embeddings: NDArray[np.floating], truth: Labels) -> Scores:
    """Scores of boxes; of a class outside the head ``truth`` is negative, so never right."""
    probabilities = head.probabilities(np.asarray(embeddings, np.float32)).astype(np.float64)
    ordered = np.sort(probabilities, axis=1)
    best = ordered[:, -1]
    lead = best - ordered[:, -2] if probabilities.shape[1] > 1 else best
    said = probabilities.argmax(1)
    right = said == truth
    if head.background is not None:  # silence, whatever the numbers say
        best = np.where(said == head.classes.index(head.background), 0.0, best)
    close = head.closeness(np.asarray(embeddings, np.float32), said).astype(np.float64)
    return Scores(best, lead, close, right, np.zeros(len(truth), np.int64))


def strangers(
    head: Head, embeddings: NDArray[np.floating], labels: Labels, start: Linear, options: Options
) -> Scores | None:
    """Scores that boxes of unknown classes would get: each group of classes, seen by a head fitted without it.

    None with fewer than four classes, where too little would be left.
    """
    classes = len(head.classes)
    known = [index for index in range(classes) if head.classes[index] != head.background]
    if len(known) < 4:
        return None
    rng = np.random.default_rng(options.seed)
    rows = rng.permutation(len(labels))[:MOST_EXAMPLES]
    features, truth = np.asarray(embeddings[rows], np.float32), labels[rows]
    quick = replace(options, solver="lbfgs", max_iter=200, tolerance=max(options.tolerance, 1e-3))
    quick = replace(quick, inverse_regularization=options.inverse_regularization * len(labels) / len(rows))
    parts = []
    for group in np.array_split(rng.permutation(known), min(GROUPS, len(known))):
        kept = [index for index in range(classes) if index not in group]
        inside = np.isin(truth, kept)
        present = np.isin(kept, truth[inside])
        kept = [index for index, there in zip(kept, present, strict=True) if there]
        if len(kept) < 2 or inside.all():
            continue
        places = np.full(classes, -1)
        places[kept] = np.arange(len(kept))
        begun = Linear(start.weight[kept], start.bias[kept])
        linear = fit(features[inside], places[truth[inside]], len(kept), quick, start=begun)
        without = replace(
            head,
            classes=tuple(head.classes[index] for index in kept),
            weight=linear.weight.astype(np.float32),
            bias=linear.bias.astype(np.float32),
            background=head.background if head.background in {head.classes[index] for index in kept} else None,
            centers=None if head.centers is None else head.centers[kept],
        )
        parts.append(scores_of(without, features[~inside], np.full(int((~inside).sum()), -1)))
    if not parts:
        return None
    groups = np.concatenate([np.full(len(part.best), number) for number, part in enumerate(parts)])
    best, lead, close, right = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("best", "lead", "close", "right")
    )
    return Scores(best, lead, close, right, groups)


def class_centers(embeddings: NDArray[np.floating], labels: Labels, classes: int) -> NDArray[np.float32]:
    """(C, D) mean direction of each class."""
    sums = np.zeros((classes, embeddings.shape[1]))
    np.add.at(sums, labels, embeddings)
    return np.asarray(sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12), np.float32)


@dataclass(frozen=True)
class Silence:
    """Chosen threshold, margin and familiarity, with what they give on the boxes that they were chosen on.

    Attributes:
        precision: share of right answers to expect; None where it could not be told.
        answered: share of the known boxes that get an answer.
        reached: whether ``precision`` is as high as was asked.
        note: what to know about the choice, in a sentence.
    """

    threshold: float
    margin: float
    familiarity: float
    precision: float | None
    answered: float | None
    reached: bool
    note: str | None = None


def choose_silence(known: Scores, unknown: Scores | None, precision: float, unknown_share: float) -> Silence:
    """The threshold, margin and familiarity that answer most while answers stay this precise.

    Of the trials with unknown boxes the worst counts: which classes a project will lack is not known beforehand.

    Args:
        known: of held-out boxes of the head's classes.
        unknown: of boxes of other classes, or None where that cannot be simulated.
        precision: share of answers that is to be right.
        unknown_share: share of boxes to expect that belong to none of the classes.
    """
    if len(known.best) < FEWEST:
        few = f"only {len(known.best)} held-out boxes: too few to choose a threshold, so the default holds"
        return Silence(DEFAULT_THRESHOLD, DEFAULT_MARGIN, -1.0, None, None, False, few)
    share = unknown_share if unknown is not None and len(unknown.best) else 0.0
    note: str | None = None
    if unknown is None and unknown_share:
        note = "fewer than four classes: how the head takes unknown objects could not be simulated"
    tried = _tried(known, unknown, share)
    good = [one for one in tried if one.sure >= precision]
    if good:
        best = max(good, key=lambda one: (one.answered, one.threshold, one.margin, one.familiarity))
    else:
        # Labels with mistakes in them make even a right answer look wrong: a silent head would help nobody.
        best = max(tried, key=lambda one: (one.answered >= LEAST_ANSWERED, one.sure, one.answered))
        note = (
            f"a precision of {precision:.0%} cannot be promised on these {len(known.best)} held-out boxes; "
            f"{best.precision:.0%} of the answers were right"
        )
    return Silence(
        best.threshold, best.margin, round(best.familiarity, 4), round(best.precision, 4),
        round(best.answered, 4), bool(good), note,
    )  # fmt: skip


@dataclass(frozen=True)
class _Tried:
    """One setting and what it gives: ``sure`` is a precision that holds although the luckiest of many was picked."""

    threshold: float
    margin: float
    familiarity: float
    answered: float
    precision: float
    sure: float


def _tried(known: Scores, unknown: Scores | None, share: float) -> list[_Tried]:
    """Every threshold with every margin and familiarity; the first answers always."""
    found = [_Tried(0.0, 0.0, -1.0, 1.0, float(known.right.mean()), 0.0)]
    quantiles = np.quantile(known.close, FAMILIAR) if share else np.array([-1.0])
    for familiarity in np.unique(np.concatenate([[-1.0], quantiles])):
        for margin in MARGINS:
            led = (known.close >= familiarity) & (known.lead >= margin)
            fooled = unknown and (unknown.close >= familiarity) & (unknown.lead >= margin)
            for threshold in THRESHOLDS:
                passed = led & (known.best >= threshold)
                answered, right = _share(passed), _share(passed & known.right)
                taken = 0.0
                if share and unknown is not None:
                    taken = _worst(fooled & (unknown.best >= threshold), unknown.group)
                everything = (1 - share) * answered + share * taken
                if not answered:
                    continue
                precision = (1 - share) * right / everything
                sure = wilson_lower(precision, answered * len(known.best))
                found.append(_Tried(float(threshold), float(margin), float(familiarity), answered, precision, sure))
    return found


def _share(chosen: NDArray[np.bool_]) -> float:
    """Their mean, which takes numpy ten times as long: thousands of settings are tried."""
    return int(np.count_nonzero(chosen)) / max(len(chosen), 1)


def wilson_lower(share: float, count: float) -> float:
    """Lower end of Wilson's interval of a share seen in ``count`` cases, for 95 % one-sided (Wilson 1927)."""
    z = 1.645
    center = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return (center - spread) / (1 + z * z / count)


def _worst(accepted: NDArray[np.bool_], groups: Labels) -> float:
    """Share of accepted boxes in the group where it is highest."""
    return float((np.bincount(groups, accepted) / np.bincount(groups)).max())
