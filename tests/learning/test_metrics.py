"""Metrics against scikit-learn's, on any labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from tests.learning.material import DIM, head_of
from training.clip.metrics import calibration_error, confusion_matrix, f1_scores, macro_f1, measure, per_class

pytestmark = pytest.mark.filterwarnings("ignore:A single label was found")
answers = st.integers(1, 6).flatmap(
    lambda classes: st.tuples(
        st.just(classes),
        st.lists(st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1)), min_size=1, max_size=60),
    )
)


def split(drawn: Any) -> tuple[int, Any, Any]:
    classes, pairs = drawn
    truth, said = (np.array(column, np.int64) for column in zip(*pairs, strict=True))
    return classes, truth, said


@given(answers)
def test_the_confusion_matrix_is_scikit_learns(drawn: Any) -> None:
    classes, truth, said = split(drawn)
    expected = sklearn_metrics.confusion_matrix(truth, said, labels=range(classes))
    assert (confusion_matrix(truth, said, classes) == expected).all()


@given(answers)
def test_f1_is_scikit_learns(drawn: Any) -> None:
    classes, truth, said = split(drawn)
    scores = sklearn_metrics.f1_score(truth, said, labels=range(classes), average=None, zero_division=0)
    np.testing.assert_allclose(f1_scores(confusion_matrix(truth, said, classes)), scores)
    present = np.unique(truth)  # a class that no held-out box has says nothing about a head
    expected = sklearn_metrics.f1_score(truth, said, labels=present, average="macro", zero_division=0)
    assert macro_f1(truth, said, classes) == pytest.approx(expected)


@given(answers)
def test_each_class_is_scikit_learns(drawn: Any) -> None:
    classes, truth, said = split(drawn)
    rows = per_class(confusion_matrix(truth, said, classes), tuple(map(str, range(classes))))
    precision, recall, _, support = sklearn_metrics.precision_recall_fscore_support(
        truth, said, labels=range(classes), zero_division=0
    )
    for row, p, r, s in zip(rows, precision, recall, support, strict=True):
        assert row["support"] == s and (row["recall"] is None) == (s == 0)
        assert (row["precision"] or 0) == pytest.approx(p, abs=1e-4)
        assert (row["recall"] or 0) == pytest.approx(r, abs=1e-4)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=80))
def test_the_calibration_error_is_that_of_the_paper(pairs: list[tuple[bool, float]]) -> None:
    right = np.array([one for one, _ in pairs])
    confidence = np.array([one for _, one in pairs])
    expected = 0.0
    for place in range(10):  # acc(B) - conf(B), weighted by |B| / n
        chosen = (confidence * 10).astype(int).clip(0, 9) == place
        if chosen.any():
            expected += chosen.mean() * abs(right[chosen].mean() - confidence[chosen].mean())
    assert calibration_error(right, confidence) == pytest.approx(expected)


def test_a_perfectly_calibrated_head_and_one_that_is_not() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 50_000)
    assert calibration_error(rng.random(50_000) < confidence, confidence) < 0.01
    assert calibration_error(np.zeros(10, bool), np.ones(10)) == 1
    assert calibration_error(np.zeros(0, bool), np.zeros(0)) == 0


def test_measure_counts_answers_apart_from_guesses() -> None:
    head = head_of()
    rows = np.eye(DIM, dtype=np.float32)[[0, 1, 2, 0, 5]]  # the last looks like nothing
    found = measure(head, rows, np.array([0, 1, 2, 1, 0]))
    assert found["boxes"] == 5 and found["answered"] == 0.8
    assert found["precision_of_answers"] == 0.75
    assert np.array(found["confusion"]).sum() == 5 and len(found["per_class"]) == 3
    none = measure(head, np.zeros((0, DIM)), np.zeros(0, np.int64))
    assert none["boxes"] == 0 and none["accuracy"] is None and none["macro_f1"] == 0
