"""Temperature and silence: recovered where they can be, defaults where they cannot."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tator_ml.engine.head import Head
from tests.learning.material import DIM, blobs, head_of, softmax, unit
from training.clip.calibration import (
    DEFAULT_MARGIN,
    DEFAULT_THRESHOLD,
    FEWEST,
    Scores,
    calibrate,
    choose_silence,
    class_centers,
    scores_of,
    strangers,
)
from training.clip.regression import Options, fit


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_a_known_temperature_is_recovered(temperature: float) -> None:
    rng = np.random.default_rng(3)
    head = replace(head_of(("a", "b", "c", "d")), temperature=temperature)
    embeddings = unit(rng.normal(size=(8000, DIM)))
    shares = head.probabilities(embeddings).astype(np.float64)
    truth = np.array([rng.choice(4, p=row / row.sum()) for row in shares])
    found = calibrate(replace(head, temperature=1.0), embeddings, truth)
    assert found.temperature == pytest.approx(temperature, rel=0.08)
    assert (found.weight == head.weight).all()


def test_too_few_boxes_change_no_temperature() -> None:
    head, rows = head_of(), np.eye(DIM, dtype=np.float32)[[0, 1] * 10][: FEWEST - 1]
    assert calibrate(head, rows, np.zeros(len(rows), np.int64)) is head


def scores(count: int, low: float, high: float, right: float, close: float, seed: int, groups: int = 1) -> Scores:
    rng = np.random.default_rng(seed)
    best = rng.uniform(low, high, count)
    return Scores(
        best, rng.uniform(0, best), rng.normal(close, 0.05, count), rng.random(count) < right,
        np.arange(count) % groups,
    )  # fmt: skip


def precision_of(silence: object, known: Scores, unknown: Scores, share: float) -> tuple[float, float]:
    def accepted(one: Scores) -> np.ndarray:
        return (
            (one.best >= silence.threshold) & (one.lead >= silence.margin) & (one.close >= silence.familiarity)  # type: ignore[attr-defined]
        )

    yes, wrong = accepted(known), accepted(unknown).mean()
    everything = (1 - share) * yes.mean() + share * wrong
    return float((1 - share) * (yes & known.right).mean() / everything), float(yes.mean())


@pytest.mark.parametrize("precision", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("share", [0.1, 0.3])
def test_the_precision_that_is_asked_for_holds_on_boxes_never_seen(precision: float, share: float) -> None:
    known, unknown = scores(3000, 0.3, 1, 0.97, 0.8, 1), scores(1000, 0.2, 0.9, 0, 0.55, 2, 4)
    silence = choose_silence(known, unknown, precision, share)
    assert silence.reached and silence.precision is not None and silence.precision >= precision
    fresh_known, fresh_unknown = scores(30_000, 0.3, 1, 0.97, 0.8, 7), scores(30_000, 0.2, 0.9, 0, 0.55, 8)
    reached, answered = precision_of(silence, fresh_known, fresh_unknown, share)
    assert reached >= precision - 0.005
    assert answered == pytest.approx(silence.answered, abs=0.05) and answered > 0.4


def test_more_unknown_boxes_are_answered_less_often() -> None:
    known, unknown = scores(2000, 0.4, 1, 0.99, 0.8, 1), scores(1000, 0.4, 1, 0, 0.7, 2)
    few, many = (choose_silence(known, unknown, 0.95, share) for share in (0.05, 0.5))
    assert few.answered is not None and many.answered is not None and few.answered > many.answered


def test_the_worst_group_of_unknown_boxes_counts() -> None:
    known, mild = scores(2000, 0.5, 1, 1, 0.8, 1), scores(1000, 0.0, 0.3, 0, 0.2, 2)
    nasty = replace(mild, best=np.where(np.arange(1000) % 10 == 0, 0.97, mild.best), close=np.full(1000, 0.9))
    nasty = replace(nasty, lead=nasty.best, group=(np.arange(1000) % 10 == 0).astype(np.int64))
    mixed = replace(nasty, group=np.zeros(1000, np.int64))
    assert choose_silence(known, nasty, 0.95, 0.2).answered < choose_silence(known, mixed, 0.95, 0.2).answered  # type: ignore[operator]


def test_too_few_boxes_give_the_defaults() -> None:
    silence = choose_silence(scores(FEWEST - 1, 0.5, 1, 1, 0.8, 1), None, 0.95, 0.2)
    assert (silence.threshold, silence.margin, silence.familiarity) == (DEFAULT_THRESHOLD, DEFAULT_MARGIN, -1)
    assert silence.precision is None and not silence.reached and str(FEWEST - 1) in (silence.note or "")


def test_a_precision_out_of_reach_is_said() -> None:
    silence = choose_silence(scores(500, 0.3, 1, 0.5, 0.8, 1), None, 0.95, 0.2)
    assert not silence.reached and "95%" in (silence.note or "")
    assert silence.answered and silence.precision is not None and silence.precision < 0.95, "it is not silent"


def fitted(classes: int, background: bool = False) -> tuple[Head, np.ndarray, np.ndarray, object]:
    embeddings, labels = blobs(classes, 60 * classes, noise=0.15)
    linear = fit(embeddings, labels, classes, Options(inverse_regularization=10))
    names = tuple(f"class {index}" for index in range(classes))
    head = replace(
        head_of(names), weight=linear.weight.astype(np.float32), bias=linear.bias.astype(np.float32),
        centers=class_centers(embeddings, labels, classes), background=names[-1] if background else None,
    )  # fmt: skip
    return head, embeddings, labels, linear


@pytest.mark.parametrize(("classes", "background", "there"), [(3, False, False), (4, True, False), (5, True, True)])
def test_strangers_need_four_classes(classes: int, background: bool, there: bool) -> None:
    head, embeddings, labels, linear = fitted(classes, background)
    assert (strangers(head, embeddings, labels, linear, Options()) is not None) == there  # type: ignore[arg-type]


def test_strangers_are_never_right_less_sure_and_less_familiar() -> None:
    head, embeddings, labels, linear = fitted(8)
    unknown = strangers(head, embeddings, labels, linear, Options(inverse_regularization=10))  # type: ignore[arg-type]
    known = scores_of(head, embeddings, labels)
    assert unknown is not None and not unknown.right.any()
    assert len(unknown.best) == len(labels), "each box is a stranger once"
    assert set(unknown.group) == {0, 1, 2, 3}
    assert np.median(unknown.best) < np.median(known.best) and np.median(unknown.close) < np.median(known.close)


def test_scores_of_background_are_silent() -> None:
    head = replace(head_of(), background="Bus")
    found = scores_of(head, np.eye(DIM, dtype=np.float32)[:3], np.array([0, 1, 2]))
    assert found.best[2] == 0 and found.best[0] > 0.9 and found.right.all()
    shares = softmax(head.weight.T[:3].astype(np.float64))
    np.testing.assert_allclose(found.lead[:2], [np.sort(row)[-1] - np.sort(row)[-2] for row in shares[:2]], atol=1e-4)


def test_centers_are_mean_directions() -> None:
    rows = unit(np.array([[1, 0.1, 0], [1, -0.1, 0], [0, 0, 2]]))
    np.testing.assert_allclose(
        class_centers(rows, np.array([0, 0, 2]), 3), [[1, 0, 0], [0, 0, 0], [0, 0, 1]], atol=1e-6
    )
