"""How much each example counts: rare classes, and examples that a first fit found hard."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tator_sdk.requests import HeadTraining

Labels = NDArray[np.int64]
Floats = NDArray[np.float64]
BETA = 0.999  # of the effective number of samples


def class_weights(labels: Labels, classes: int, kind: Literal["none", "balanced", "effective"]) -> Floats:
    """(N,) weights of examples with a mean of 1.

    ``balanced`` is inverse frequency, as scikit-learn has it; ``effective`` is the inverse of the effective number
    of samples, (1 - beta^n) / (1 - beta) (https://arxiv.org/abs/1901.05555).
    """
    counts = np.bincount(labels, minlength=classes).astype(np.float64)
    if kind == "none":
        return np.ones(len(labels))
    per_class = 1 / np.maximum(counts, 1)
    if kind == "effective":
        per_class = (1 - BETA) / (1 - BETA ** np.maximum(counts, 1))
    weights = per_class[labels]
    return np.asarray(weights / weights.mean())


def hard_examples(probabilities: NDArray[np.floating], labels: Labels, request: HeadTraining) -> Floats:
    """(N,) weights of examples by how a first fit saw them: wrong ones, unsure ones, all others 1."""
    ordered = np.sort(probabilities, axis=1)
    best = ordered[:, -1]
    lead = best - ordered[:, -2]
    wrong = probabilities.argmax(1) != labels
    unsure = (best < request.mining_confidence) | (lead < request.mining_margin)
    counted: Floats = np.where(unsure, request.mining_uncertain, 1.0)
    return np.where(wrong, np.maximum(counted, request.mining_misclassified), counted)


def mining_iterations(max_iter: int) -> int:
    """How long the refit may take: max(5, min(200, max_iter / 5))."""
    return max(5, min(200, max_iter // 5))
