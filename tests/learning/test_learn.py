"""Examples → a head, end to end on embeddings whose classes are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from tator_ml.engine.head import Head
from tator_sdk.requests import HeadTraining, Solver
from tests.learning.material import blobs, image_name, softmax
from training.clip.calibration import DEFAULT_MARGIN, DEFAULT_THRESHOLD
from training.clip.learn import Examples, TooFewExamples, learn
from training.clip.regression import Options, fit
from training.clip.weights import hard_examples, mining_iterations
from training.job import JobCancelled

NAMES = ("zebra", "ant", "mule", "bee", "(none of these)")
REQUEST = HeadTraining(project=1, class_weight="none", inverse_regularization=10)


def examples_of(classes: int = 5, count: int = 600, noise: float = 0.2, boxes: int = 3, **values: Any) -> Examples:
    embeddings, labels = blobs(classes, count, noise)
    images = [image_name(number // boxes) for number in np.random.default_rng(5).permutation(count)]
    names = NAMES[:classes]
    return replace(Examples(embeddings, [names[label] for label in labels], images, names), **values)


def learned(examples: Examples, request: HeadTraining = REQUEST, **how: Any) -> Any:
    return learn(examples, request, "axis-1", "axis", **how)


def test_a_head_that_knows_its_classes() -> None:
    examples = examples_of()
    found = learned(examples)
    head, held = found.head, found.metrics["held_out"]
    assert head.classes == NAMES, "in the project's order"
    assert (head.encoder, head.encoder_name, head.version) == ("axis-1", "axis", "unregistered")
    assert held["macro_f1"] > 0.9 and held["boxes"] == found.held_out.sum() and found.used.all()
    assert held["images"] + found.metrics["training"]["images"] == len(set(examples.images))
    assert found.metrics["precision_reached"] and held["precision_of_answers"] >= 0.95
    assert held["calibration_error"] < 0.1
    sides = {image: set(found.held_out[np.array(examples.images) == image]) for image in set(examples.images)}
    assert all(len(side) == 1 for side in sides.values())


def test_nothing_of_the_held_out_boxes_is_learned() -> None:
    examples = examples_of()
    found = learned(examples)
    spoiled = examples.embeddings.copy()
    spoiled[found.held_out] = np.roll(spoiled[found.held_out], 1, axis=1)
    again = learned(replace(examples, embeddings=spoiled))
    assert (again.head.weight == found.head.weight).all() and (again.head.centers == found.head.centers).all()
    assert again.metrics["held_out"]["accuracy"] < found.metrics["held_out"]["accuracy"]


def test_what_is_new_is_mostly_left_alone() -> None:
    """Boxes of a class that the head never saw are answered far less often than its own."""
    examples = examples_of(noise=0.15)
    rows = np.array([label != "bee" for label in examples.labels])
    without = Examples(
        examples.embeddings[rows],
        [label for label in examples.labels if label != "bee"],
        [image for image, row in zip(examples.images, rows, strict=True) if row],
        tuple(name for name in NAMES if name != "bee"),
    )
    found = learned(without)
    strange = found.head.verdicts(examples.embeddings[~rows])
    answered = np.mean([one.label is not None for one in strange])
    assert found.head.familiarity > -1 and answered < 0.1 < found.metrics["held_out"]["answered"]


def test_a_rare_class_is_left_out_and_reported() -> None:
    examples = examples_of(4)
    labels = list(examples.labels)
    labels[0] = "okapi"
    few = replace(examples, labels=labels, classes=("okapi", *NAMES[:4], "never seen"))
    found = learned(few, REQUEST.model_copy(update={"min_per_class": 3}))
    assert found.head.classes == NAMES[:4] and not found.used[0] and found.used[1:].all() and not found.held_out[0]
    assert any("'okapi'" in note and "1 examples" in note for note in found.notes)
    assert any("'never seen'" in note for note in found.notes)


def test_too_few_classes() -> None:
    examples = examples_of(4)
    one = replace(examples, labels=["zebra"] * len(examples.labels))
    with pytest.raises(TooFewExamples, match="two classes"):
        learned(one)
    background = ["zebra" if number % 2 else NAMES[4] for number in range(len(examples.labels))]
    with_background = replace(examples, labels=background, background=NAMES[4])
    assert learned(with_background).head.background == NAMES[4], "one class against none of these"
    with pytest.raises(TooFewExamples):
        learned(replace(with_background, labels=[NAMES[4]] * len(examples.labels)))


def test_the_background_is_never_an_answer() -> None:
    examples = examples_of(background=NAMES[4])
    found = learned(examples)
    verdicts = found.head.verdicts(examples.embeddings)
    of_background = [one for one, label in zip(verdicts, examples.labels, strict=True) if label == NAMES[4]]
    assert {one.label for one in verdicts} <= {*NAMES[:4], None}
    assert np.mean([one.top[0][0] == NAMES[4] for one in of_background]) > 0.9
    assert np.mean([one.label is None for one in of_background]) > 0.9


def test_few_boxes_keep_the_default_silence() -> None:
    found = learned(examples_of(3, 24))
    assert (found.head.threshold, found.head.margin) == (DEFAULT_THRESHOLD, DEFAULT_MARGIN)
    assert found.head.temperature == 1 and any("too few to choose" in note for note in found.notes)
    assert not found.metrics["precision_reached"]


def test_hard_examples_are_learned_again_with_their_weights() -> None:
    examples = examples_of(noise=0.7)
    request = REQUEST.model_copy(update={"hard_example_mining": True})
    plain, mined = learned(examples), learned(examples, request)
    train = ~mined.held_out
    features, labels = examples.embeddings[train], np.array([NAMES.index(label) for label in examples.labels])[train]
    options = Options("lbfgs", 10)
    first = fit(features, labels, 5, options)
    weights = hard_examples(softmax(first.logits(features)), labels, request)
    again = fit(features, labels, 5, replace(options, max_iter=mining_iterations(1000)), weights, first)
    np.testing.assert_allclose(mined.head.weight, again.weight, atol=1e-4)
    assert mined.metrics["training"]["hard_examples"] == (weights > 1).sum() > 0
    assert plain.metrics["training"]["hard_examples"] == 0 and not np.allclose(plain.head.weight, mined.head.weight)


def test_the_curve_counts_on_through_a_refit_and_has_all_figures() -> None:
    points: list[dict[str, float]] = []
    request = REQUEST.model_copy(update={"hard_example_mining": True})
    found = learned(examples_of(noise=0.5), request, trace=points.append)
    numbers = [point["iteration"] for point in points]
    assert numbers == sorted(set(numbers)) and len(numbers) > found.metrics["training"]["iterations"]
    figures = {"train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "loss_change"}
    assert all(figures <= set(point) for point in points) and "coefficient_change" in points[1]
    assert points[-1]["train_loss"] < points[0]["train_loss"]
    assert points[3]["loss_change"] == pytest.approx(points[3]["train_loss"] - points[2]["train_loss"])
    assert (learned(examples_of(noise=0.5), request).head.weight == found.head.weight).all()


def test_the_trace_can_stop_it() -> None:
    def trace(point: dict[str, float]) -> None:
        if point["iteration"] == 3:
            raise JobCancelled

    with pytest.raises(JobCancelled):
        learned(examples_of(), trace=trace)


@pytest.mark.filterwarnings("ignore:Liblinear failed to converge")
@pytest.mark.parametrize("solver", get_args(Solver))
def test_every_solver_makes_a_head(solver: str) -> None:
    request = REQUEST.model_copy(update={"solver": solver, "class_weight": "balanced"})
    found = learned(examples_of(4, 240), request)
    assert found.metrics["held_out"]["macro_f1"] > 0.9
    assert any("against the rest" in note for note in found.notes) == (solver == "liblinear")
    short = learned(examples_of(4, 240), request.model_copy(update={"max_iter": 1, "tolerance": 1e-12}))
    assert any("without converging" in note for note in short.notes)


def test_what_is_saved_answers_the_same(tmp_path: Path) -> None:
    examples = examples_of(background=NAMES[4])
    head = learned(examples).head
    head.save(tmp_path)
    again = Head.load(tmp_path)
    assert head.familiarity > -1 and head.centers is not None
    assert again.familiarity == head.familiarity and (again.centers == head.centers).all()
    assert again.background == NAMES[4] and again.verdicts(examples.embeddings) == head.verdicts(examples.embeddings)


def test_the_same_examples_make_the_same_head() -> None:
    one, other = learned(examples_of()), learned(examples_of())
    assert one.head.files() == other.head.files() and one.metrics == other.metrics
