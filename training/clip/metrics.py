"""How good a head is: per class and overall, with its probabilities and with its silence."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tator_ml.engine.head import Head

Labels = NDArray[np.int64]
BINS = 10


def confusion_matrix(truth: Labels, said: Labels, classes: int) -> NDArray[np.int64]:
    """(C, C) counts: row the true class, column the predicted one."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (truth, said), 1)
    return counts


def f1_scores(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """(C,) F1 of each class; 0 for one that neither occurs nor is predicted."""
    hits = np.diag(counts).astype(np.float64)
    either = counts.sum(0) + counts.sum(1)
    return np.asarray(np.divide(2 * hits, either, out=np.zeros_like(hits), where=either > 0))


def macro_f1(truth: Labels, said: Labels, classes: int) -> float:
    """Mean F1 of the classes that occur in ``truth``; 0 where nothing does."""
    counts = confusion_matrix(truth, said, classes)
    present = counts.sum(1) > 0
    return float(f1_scores(counts)[present].mean()) if present.any() else 0.0


def calibration_error(right: NDArray[np.bool_], confidence: NDArray[np.floating], bins: int = BINS) -> float:
    """Expected calibration error over equal-width bins, 0..1 (https://arxiv.org/abs/1706.04599)."""
    if not len(right):
        return 0.0
    places = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(float((right[places == b] - confidence[places == b]).sum())) for b in range(bins)]
    return sum(gaps) / len(right)


def per_class(counts: NDArray[np.int64], names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Precision, recall, F1 and support of each class."""
    scores = f1_scores(counts)
    rows = []
    for index, name in enumerate(names):
        hits, said, support = counts[index, index], counts[:, index].sum(), counts[index].sum()
        rows.append(
            {
                "class": name,
                "precision": round(float(hits / said), 4) if said else None,
                "recall": round(float(hits / support), 4) if support else None,
                "f1": round(float(scores[index]), 4) if support else None,
                "support": int(support),
            }
        )
    return rows


def measure(head: Head, embeddings: NDArray[np.floating], truth: Labels) -> dict[str, Any]:
    """Everything about a head on boxes (N, D) whose class, an index of ``head.classes``, is known."""
    probabilities = head.probabilities(np.asarray(embeddings, np.float32))
    said = probabilities.argmax(1)
    right = said == truth
    answered = answers(head, np.asarray(embeddings, np.float32))
    counts = confusion_matrix(truth, said, len(head.classes))
    values: dict[str, Any] = {
        "boxes": len(truth),
        "accuracy": _share(right),
        "macro_f1": round(macro_f1(truth, said, len(head.classes)), 4),
        "calibration_error": round(calibration_error(right, probabilities.max(1)), 4) if len(truth) else None,
        "answered": _share(answered),
        "precision_of_answers": _share(right[answered]),
        "per_class": per_class(counts, head.classes),
        "confusion": counts.tolist(),
    }
    return values


def answers(head: Head, embeddings: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(N,) whether the head answers."""
    return np.array([verdict.label is not None for verdict in head.verdicts(embeddings)], bool)


def _share(values: NDArray[np.bool_]) -> float | None:
    return round(float(values.mean()), 4) if len(values) else None
