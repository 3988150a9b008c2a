"""Fit the starter class head on embeddings of generated scenes.

    python -m training.starter.head --folder build/starter --output tator_ml/weights/starter_head

Three sets of scenes that share none: the head is fitted on scenes that its encoder did not learn
from either, temperature and thresholds on one half of the held-out ones, and what is reported is
measured on the other half.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.linear_model import LogisticRegression

from tator_ml.engine import encoders
from tator_ml.engine.encoders.base import Encoder
from tator_ml.engine.head import Head
from training.starter.encoder import (
    ENCODER_SCENES,
    HELD_OUT_SEED,
    RECIPE,
    TRAIN_SEED,
    VARIANTS,
    Crops,
    load_crops,
)
from training.starter.names import display_name
from training.starter.scenes import CLASSES

Embedded = tuple[NDArray[np.float32], NDArray[np.int64]]


def embed_all(encoder: Encoder, crops: Crops, variants: range) -> Embedded:
    """Embeddings (N * variants, D) of the crops in these variants, and their shapes."""
    parts = [encoder.embed(list(crops.variant(variant))) for variant in variants]
    return np.concatenate(parts), np.tile(crops.shapes, len(variants))


def fit(embedded: Embedded, encoder: str, seed: int) -> Head:
    """Logistic regression as a head that always answers, temperature 1."""
    fitted = LogisticRegression(C=10, max_iter=1000, random_state=seed).fit(*embedded)
    weight, bias = fitted.coef_.astype(np.float32), fitted.intercept_.astype(np.float32)
    names = tuple(display_name(CLASSES[row]) for row in fitted.classes_)
    return Head(names, weight, bias, 1.0, 0.0, 0.0, encoder, RECIPE, "unversioned")


def log_loss(head: Head, embedded: Embedded) -> float:
    """Mean negative log-likelihood of the true classes."""
    embeddings, shapes = embedded
    truth = head.probabilities(embeddings)[np.arange(len(shapes)), shapes]
    return float(-np.log(truth.clip(1e-7)).mean())


def calibrate(head: Head, embedded: Embedded) -> Head:
    """The head with the temperature under which ``embedded`` is likeliest, 0.05 to 20."""
    found = minimize_scalar(
        lambda power: log_loss(replace(head, temperature=float(np.exp(power))), embedded),
        bounds=(np.log(0.05), np.log(20)),
        method="bounded",
    )
    return replace(head, temperature=round(float(np.exp(found.x)), 4))


def set_thresholds(head: Head, embedded: Embedded, precision: float) -> Head:
    """The head with the threshold and margin that answer most while answers stay this precise."""
    probabilities, shapes = head.probabilities(embedded[0]), embedded[1]
    ordered = np.sort(probabilities, axis=1)
    best, lead = ordered[:, -1], ordered[:, -1] - ordered[:, -2]
    right = probabilities.argmax(1) == shapes
    choices = []
    for threshold in (percent / 100 for percent in range(30, 100)):
        for margin in (percent / 100 for percent in range(5, 50, 5)):
            answered = (best >= threshold) & (lead >= margin)
            if answered.any() and right[answered].mean() >= precision:
                choices.append((int(answered.sum()), threshold, margin))
    if not choices:
        raise SystemExit(f"No threshold makes the head's answers right in {precision:.0%} of cases.")
    _, threshold, margin = max(choices)  # of equal ones the strictest: it costs no answer here
    return replace(head, threshold=threshold, margin=margin)


def measure(head: Head, embedded: Embedded) -> dict[str, float]:
    """Accuracy, answered share and precision, and calibration, as one would see them in use."""
    embeddings, shapes = embedded
    probabilities = head.probabilities(embeddings)
    labels = [head.decide(row).label for row in probabilities]
    answered = np.array([label is not None for label in labels])
    right = probabilities.argmax(1) == shapes
    confidence = probabilities.max(1)
    bins = np.minimum((confidence * 10).astype(int), 9)
    gaps = [abs(float((right[bins == b] - confidence[bins == b]).sum())) for b in range(10)]
    values = {
        "objects": float(len(shapes)),
        "accuracy": right.mean(),
        "answered": answered.mean(),
        "precision": right[answered].mean(),
        "log_loss": log_loss(head, embedded),
        "calibration_error": sum(gaps) / len(shapes),
    }
    return {name: round(float(value), 4) for name, value in values.items()}


def main() -> None:
    """Read the options, fit, calibrate, measure, save, and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=1000, help="scenes to fit on")
    parser.add_argument("--held-out", type=int, default=250, help="scenes to calibrate, and to measure on")
    parser.add_argument("--precision", type=float, default=0.97, help="share of answers that must be right")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--encoder", default="starter", help="name for tator_ml.engine.encoders.load")
    parser.add_argument("--folder", type=Path, default=Path("build/starter"))
    parser.add_argument("--output", type=Path, default=Path("tator_ml/weights/starter_head"))
    options = parser.parse_args()
    encoder = encoders.load(options.encoder)
    everything = range(VARIANTS)
    fit_on = load_crops(options.folder, TRAIN_SEED + ENCODER_SCENES, options.scenes)
    calibrate_on = load_crops(options.folder, HELD_OUT_SEED, options.held_out)
    measure_on = load_crops(options.folder, HELD_OUT_SEED + options.held_out, options.held_out)

    head = fit(embed_all(encoder, fit_on, everything), encoder.version, options.seed)
    held_out = embed_all(encoder, calibrate_on, everything)
    head = set_thresholds(calibrate(head, held_out), held_out, options.precision)
    digest = hashlib.sha256(head.weight.tobytes() + head.bias.tobytes()).hexdigest()[:8]
    head = replace(head, version=f"starter-head-{digest}")
    metrics: dict[str, Any] = {
        "true_box": measure(head, embed_all(encoder, measure_on, range(1))),
        "jittered_box": measure(head, embed_all(encoder, measure_on, range(1, VARIANTS))),
        "settings": {name: getattr(options, name) for name in ("scenes", "held_out", "precision", "seed")},
    }
    head.save(options.output, metrics)
    chosen = {"temperature": head.temperature, "threshold": head.threshold, "margin": head.margin}
    print(json.dumps({"version": head.version, **chosen, **metrics}, indent=2))


if __name__ == "__main__":
    main()
