"""Class heads: how good, how honest, how quick. Photographs and their encoder come from the shared fixtures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.head_speed import cached_retrain, embed_rate, webhook_to_active
from benchmarks.material import PHOTO_ENCODER, PHOTOS, Boxes, photo_boxes, scene_boxes
from benchmarks.report import Figure
from label_config.build import build
from label_config.reader import read_cached
from tator_ml.engine import encoders
from tator_ml.engine.crops import CropRecipe
from tator_ml.engine.encoders.base import Encoder
from tator_ml.quality.disagreements import disagreements
from tator_sdk.annotations import LabelledBox
from tator_sdk.geometry import Xyxy
from tator_sdk.requests import HeadTraining
from training.clip.learn import Examples, Learned, learn
from training.clip.metrics import answers, calibration_error, macro_f1
from training.clip.regression import Options, fit
from training.clip.weights import class_weights
from training.starter.names import DISPLAY_NAMES
from training.starter.scenes import SceneSettings

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]
Fitted = Callable[[Floats, Labels, Floats], Labels]
"""Fits on features and classes, and answers the class of other features."""

NAMES = tuple(DISPLAY_NAMES.values())
REQUEST = HeadTraining(project=1)
# Small, crowded, camouflaged and badly boxed: the starter encoder is right in three of four cases.
HARD, HARD_JITTER = SceneSettings(min_side=8, max_side=28, min_visible=0.3, camouflage=0.9, objects=(5, 10)), 0.15
PLAIN_JITTER = 0.1  # boxes as people draw them
UNKNOWN_PAIRS = ((0, 1), (2, 5), (3, 6), (4, 9), (7, 8))  # every class is unknown once
FLIPPED = 0.05
FEWEST_PHOTOS = 4
FOLDS, SPLITS = 5, 3


def taught(boxes: Boxes, request: HeadTraining = REQUEST, classes: Sequence[str] = NAMES) -> Learned:
    """A head as the trainer makes it."""
    examples = Examples(boxes.embeddings, boxes.labels, boxes.images, classes)
    return learn(examples, request, "bench", "starter")


def photo_figures() -> list[Figure]:
    """Folds by image: the trainer's crop, encoder and regression against scikit-learn on features made apart."""
    if not (PHOTOS.exists() and PHOTO_ENCODER.exists()):
        return []
    encoder, recipe = encoders.load(f"transformers:{PHOTO_ENCODER}"), CropRecipe()

    def ours(pixels: NDArray[np.uint8], boxes: list[Xyxy]) -> NDArray[np.float32]:
        return encoder.embed([recipe.crop(pixels, box, encoder.size) for box in boxes])

    mine, theirs = photo_boxes(ours), photo_boxes(reference_features())
    shown_on = Counter(label for _, label in set(zip(mine.images, mine.labels, strict=True)))
    kept = np.array([shown_on[label] >= FEWEST_PHOTOS for label in mine.labels])
    mine, theirs = mine.where(kept), theirs.where(kept)
    classes = sorted(set(mine.labels))
    truth = np.array([classes.index(label) for label in mine.labels])
    scores: dict[str, list[float]] = {"ours": [], "plain": [], "balanced": []}
    for seed in range(SPLITS):
        folds = folds_by_image(mine.images, seed)
        scores["ours"].append(cross_validated(mine.embeddings, truth, folds, our_fit))
        scores["plain"].append(cross_validated(theirs.embeddings, truth, folds, scikit_fit(None)))
        scores["balanced"].append(cross_validated(theirs.embeddings, truth, folds, scikit_fit("balanced")))
    means = {name: float(np.mean(values)) for name, values in scores.items()}
    return [
        Figure("head.real_macro_f1", means["ours"], "F1", "higher"),
        Figure("head.real_macro_f1_plain", means["plain"], "F1", "higher"),
        Figure("head.real_macro_f1_plain_balanced", means["balanced"], "F1", "higher"),
        Figure("head.real_macro_f1_gap", means["plain"] - means["ours"], "F1", "lower", 0.02),
        Figure("head.real_macro_f1_gap_balanced", means["balanced"] - means["ours"], "F1", "lower", 0.02),
        Figure("head.real_boxes", len(truth), "boxes", "higher"),
        Figure("head.real_classes", len(classes), "classes", "higher"),
        lbfgs_figure(mine, classes),
    ]


def reference_features() -> Callable[[NDArray[np.uint8], list[Xyxy]], NDArray[np.float32]]:
    """The encoder's own pooled features of plain box crops, with nothing of Tator's in between."""
    import torch
    from PIL import Image
    from transformers import AutoModel

    model = AutoModel.from_pretrained(PHOTO_ENCODER).eval()

    def embed(pixels: NDArray[np.uint8], boxes: list[Xyxy]) -> NDArray[np.float32]:
        picture = Image.fromarray(pixels)
        crops = []
        for x0, y0, x1, y1 in boxes:
            crop = picture.crop((x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)))
            crops.append(np.asarray(crop.resize((224, 224), Image.Resampling.BILINEAR), np.float32) / 127.5 - 1)
        with torch.inference_mode():
            return np.asarray(model(torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)).pooler_output.numpy())

    return embed


def folds_by_image(images: Sequence[str], seed: int) -> NDArray[np.int64]:
    names = sorted(set(images))
    places = dict(zip(names, np.random.default_rng(seed).permutation(len(names)) % FOLDS, strict=True))
    return np.array([places[image] for image in images], np.int64)


def cross_validated(features: Floats, truth: Labels, folds: Labels, fitted: Fitted) -> float:
    """Macro-F1 of the out-of-fold answers."""
    said = np.zeros_like(truth)
    for fold in range(FOLDS):
        train = folds != fold
        said[~train] = fitted(features[train], truth[train], features[~train])
    return macro_f1(truth, said, int(truth.max()) + 1)


def our_fit(features: Floats, truth: Labels, others: Floats) -> Labels:
    present = np.unique(truth)
    places = np.searchsorted(present, truth)
    options = Options(REQUEST.solver, REQUEST.inverse_regularization, REQUEST.max_iter, REQUEST.tolerance, REQUEST.seed)
    weights = class_weights(places, len(present), REQUEST.class_weight)
    return np.asarray(present[fit(features, places, len(present), options, weights).logits(others).argmax(1)])


def scikit_fit(class_weight: str | None) -> Fitted:
    from sklearn.linear_model import LogisticRegression

    def fitted(features: Floats, truth: Labels, others: Floats) -> Labels:
        plain = LogisticRegression(max_iter=1000, class_weight=class_weight).fit(features, truth)
        return np.asarray(plain.predict(others), np.int64)

    return fitted


def lbfgs_figure(boxes: Boxes, classes: Sequence[str]) -> Figure:
    """Largest difference of a coefficient from one uninterrupted scikit-learn fit, with and without a trace."""
    from sklearn.linear_model import LogisticRegression

    truth = np.array([classes.index(label) for label in boxes.labels])
    features = boxes.embeddings.astype(np.float64)
    options = Options()
    plain = LogisticRegression(C=options.inverse_regularization, max_iter=options.max_iter).fit(features, truth)
    off = 0.0
    for watch in (None, lambda linear: None):
        linear = fit(features, truth, len(classes), options, watch=watch)
        off = max(
            off, float(np.abs(linear.weight - plain.coef_).max()), float(np.abs(linear.bias - plain.intercept_).max())
        )
    return Figure("head.lbfgs_difference", off, "coefficient", "lower", 1e-3)


def honesty_figures(encoder: Encoder) -> list[Figure]:
    """Calibration where the encoder is often wrong; silence where an object is of no known class."""
    learned = taught(scene_boxes(encoder, range(9_740_000, 9_740_500), HARD, HARD_JITTER))
    test = scene_boxes(encoder, range(9_745_000, 9_745_300), HARD, HARD_JITTER)
    truth = np.array([learned.head.classes.index(label) for label in test.labels])
    probabilities = learned.head.probabilities(test.embeddings)
    right = probabilities.argmax(1) == truth
    accuracy = float(right.mean())
    return [
        Figure("head.ece", calibration_error(right, probabilities.max(1)), "share", "lower", 0.05),
        Figure("head.hard_accuracy", accuracy, "share", "lower", 0.85),
        Figure("head.hard_accuracy_least", accuracy, "share", "higher", 0.70),
        *abstain_figures(encoder),
    ]


def abstain_figures(encoder: Encoder) -> list[Figure]:
    """Five heads, each without two of the ten classes, on scenes where a fifth of the boxes are of those two."""
    everything = scene_boxes(encoder, range(9_750_000, 9_750_600), jitter=PLAIN_JITTER)
    test = scene_boxes(encoder, range(9_755_000, 9_755_300), jitter=PLAIN_JITTER)
    answered, right, known_answered, known_count, precisions = 0, 0, 0, 0, []
    for pair in UNKNOWN_PAIRS:
        unknown = {NAMES[index] for index in pair}
        kept = everything.where(np.array([label not in unknown for label in everything.labels]))
        head = taught(kept, classes=[name for name in NAMES if name not in unknown]).head
        chosen = with_unknown_share(test, unknown, 0.2)
        said = np.array(head.classes)[head.probabilities(chosen.embeddings).argmax(1)]
        answers_given = answers(head, chosen.embeddings)
        hits = answers_given & (said == np.array(chosen.labels))
        known = np.array([label not in unknown for label in chosen.labels])
        answered, right = answered + int(answers_given.sum()), right + int(hits.sum())
        known_answered, known_count = (
            known_answered + int((answers_given & known).sum()),
            known_count + int(known.sum()),
        )
        precisions.append(float(hits.sum() / answers_given.sum()))
    return [
        Figure("head.abstain_precision", right / answered, "share", "higher", 0.95),
        Figure("head.abstain_precision_worst_pair", min(precisions), "share", "higher"),
        Figure("head.abstain_answered", known_answered / known_count, "share", "higher", 0.60),
    ]


def with_unknown_share(boxes: Boxes, unknown: set[str], share: float) -> Boxes:
    """The boxes with as many of the unknown classes left out, at random, as makes their share this."""
    strange = np.array([label in unknown for label in boxes.labels])
    wanted = round(share / (1 - share) * int((~strange).sum()))
    rows = np.flatnonzero(strange)
    kept = ~strange
    kept[np.random.default_rng(5).permutation(rows)[:wanted]] = True
    return boxes.where(kept)


def label_error_figures(encoder: Encoder) -> list[Figure]:
    """A twentieth of the labels is wrong, in what the head learns from as in what it checks."""
    boxes = scene_boxes(encoder, range(9_760_000, 9_760_600), jitter=PLAIN_JITTER)
    rng = np.random.default_rng(11)
    flipped = rng.random(len(boxes.labels)) < FLIPPED
    given = [
        NAMES[(NAMES.index(label) + int(rng.integers(1, len(NAMES)))) % len(NAMES)] if wrong else label
        for label, wrong in zip(boxes.labels, flipped, strict=True)
    ]
    head = taught(replace(boxes, labels=given)).head
    interface = read_cached(build("boxes", list(NAMES), None))
    labelled = [LabelledBox(str(row), "image", label, (0, 0, 1, 1), (256, 256)) for row, label in enumerate(given)]
    results = [
        {"id": str(row), "from_name": "box", "type": "rectanglelabels", "value": {"rectanglelabels": [label]}}
        for row, label in enumerate(given)
    ]
    flagged = {int(one.box.region) for one in disagreements(head, labelled, boxes.embeddings, results, interface)}
    wrong = set(np.flatnonzero(flipped).tolist())
    return [
        Figure("head.label_error_recall", len(flagged & wrong) / len(wrong), "share", "higher", 0.8),
        Figure("head.label_error_precision", len(flagged & wrong) / max(len(flagged), 1), "share", "higher", 0.8),
        Figure("head.label_errors", len(wrong), "boxes", "higher"),
    ]


def mining_figures(encoder: Encoder) -> list[Figure]:
    """Hard-example mining on a set in which a class is the rarer the later it comes, without class weights."""
    boxes = scene_boxes(encoder, range(9_770_000, 9_770_600), HARD, HARD_JITTER)
    rng = np.random.default_rng(7)
    keep = np.array([rng.random() < 0.65 ** NAMES.index(label) for label in boxes.labels])
    few = boxes.where(keep)
    test = scene_boxes(encoder, range(9_775_000, 9_775_200), HARD, HARD_JITTER)
    scores = {}
    for mined in (False, True):
        for weight in ("none", "balanced"):
            request = REQUEST.model_copy(update={"hard_example_mining": mined, "class_weight": weight})
            head = taught(few, request).head
            truth = np.array([head.classes.index(label) if label in head.classes else -1 for label in test.labels])
            said = head.probabilities(test.embeddings).argmax(1)
            scores[mined, weight] = macro_f1(truth[truth >= 0], said[truth >= 0], len(head.classes))
    return [
        Figure("head.mining_gain", scores[True, "none"] - scores[False, "none"], "F1", "higher"),
        Figure("head.mining_gain_balanced", scores[True, "balanced"] - scores[False, "balanced"], "F1", "higher"),
        Figure("head.balanced_gain", scores[False, "balanced"] - scores[False, "none"], "F1", "higher"),
    ]


def measure() -> list[Figure]:
    encoder = encoders.load("starter")
    return [
        *photo_figures(),
        *honesty_figures(encoder),
        *label_error_figures(encoder),
        *mining_figures(encoder),
        *embed_rate(),
        *cached_retrain(),
        *webhook_to_active(),
    ]
