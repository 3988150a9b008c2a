"""The regression: scikit-learn's coefficients whether watched or not, whichever solver."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from tator_sdk.requests import HeadTraining, Solver
from tests.learning.material import blobs, softmax
from training.clip.regression import Linear, Options, fit, loss
from training.clip.weights import class_weights, hard_examples, mining_iterations
from training.job import JobCancelled

EXACT = Options("lbfgs", 3.0, 5000, 1e-9)


def reference(embeddings: Any, labels: Any, weights: Any, c: float = 3.0) -> Any:
    return LogisticRegression(C=c, tol=1e-10, max_iter=20_000).fit(
        np.asarray(embeddings, np.float64), labels, sample_weight=weights
    )


def weights_of(labels: Any) -> Any:
    return np.random.default_rng(1).uniform(0.5, 6, len(labels))


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("watched", [False, True])
def test_lbfgs_gives_scikit_learns_coefficients(classes: int, weighted: bool, watched: bool) -> None:
    embeddings, labels = blobs(classes, 160)
    weights = weights_of(labels) if weighted else None
    seen: list[Linear] = []
    linear = fit(embeddings, labels, classes, EXACT, weights, watch=seen.append if watched else None)
    expected = reference(embeddings, labels, weights)
    if classes == 2:
        np.testing.assert_allclose(linear.weight[1] - linear.weight[0], expected.coef_[0], atol=1e-3)
        np.testing.assert_allclose(linear.bias[1] - linear.bias[0], expected.intercept_[0], atol=1e-3)
    else:
        np.testing.assert_allclose(linear.weight, expected.coef_, atol=1e-3)
        np.testing.assert_allclose(linear.bias - linear.bias.mean(), expected.intercept_, atol=1e-3)
    assert linear.converged and linear.note is None
    assert [one.iterations for one in seen] == (list(range(1, linear.iterations + 1)) if watched else [])


def test_watching_changes_no_coefficient() -> None:
    embeddings, labels = blobs(4, 120)
    alone, watched = (fit(embeddings, labels, 4, Options(), watch=watch) for watch in (None, lambda _: None))
    assert (alone.weight == watched.weight).all() and (alone.bias == watched.bias).all()


@pytest.mark.parametrize("solver", [name for name in get_args(Solver) if name != "liblinear"])
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("watched", [False, True])
def test_every_solver_comes_to_the_same_probabilities(solver: Any, classes: int, watched: bool) -> None:
    embeddings, labels = blobs(classes, 150)
    weights = weights_of(labels)
    seen: list[Linear] = []
    options = Options(solver, 3.0, 3000, 1e-6)
    linear = fit(embeddings, labels, classes, options, weights, watch=seen.append if watched else None)
    expected = reference(embeddings, labels, weights).predict_proba(embeddings)
    assert linear.converged
    np.testing.assert_allclose(softmax(linear.logits(embeddings)), expected, atol=2e-3)
    assert linear.weight.shape == (classes, embeddings.shape[1]) and linear.bias.shape == (classes,)
    counts = [one.iterations for one in seen]
    assert not watched or (len(counts) >= 4 and counts == sorted(counts))


@pytest.mark.parametrize("solver", ["sag", "saga"])
def test_rare_classes_do_not_make_stochastic_solvers_diverge(solver: Any) -> None:
    embeddings, labels = blobs(5, 500, noise=1.0, dim=32, shares=[0.6, 0.3, 0.09, 0.005, 0.005])
    weights = class_weights(labels, 5, "balanced")
    assert weights.max() > 10
    linear = fit(embeddings, labels, 5, Options(solver, 10.0, 1000, 1e-4), weights)
    assert linear.converged
    expected = reference(embeddings, labels, weights, 10.0).predict_proba(embeddings)
    np.testing.assert_allclose(softmax(linear.logits(embeddings)), expected, atol=0.01)


def test_liblinear_fits_one_class_against_the_rest_and_says_so() -> None:
    embeddings, labels = blobs(3, 120)
    seen: list[Linear] = []
    linear = fit(embeddings, labels, 3, Options("liblinear"), watch=seen.append)
    assert linear.note is not None and "one regression a class" in linear.note
    assert len(seen) == 1 and (linear.logits(embeddings).argmax(1) == labels).mean() > 0.9
    for index in range(3):
        one = LogisticRegression(solver="liblinear", random_state=42).fit(embeddings, labels == index)
        np.testing.assert_allclose(linear.weight[index], one.coef_[0], atol=1e-3)
    assert fit(embeddings[labels < 2], labels[labels < 2], 2, Options("liblinear")).note is None


@pytest.mark.parametrize("solver", get_args(Solver))
def test_the_watch_can_end_the_fit(solver: Any) -> None:
    embeddings, labels = blobs(3, 60)
    seen: list[Linear] = []

    def watch(linear: Linear) -> None:
        seen.append(linear)
        if solver == "liblinear" or len(seen) == 3:
            raise JobCancelled

    with pytest.raises(JobCancelled):
        fit(embeddings, labels, 3, Options(solver, tolerance=1e-9), watch=watch)
    assert len(seen) == (1 if solver == "liblinear" else 3)


@pytest.mark.parametrize("solver", ["lbfgs", "saga", "newton-cg"])
def test_the_limit_of_iterations_holds_and_is_told(solver: Any) -> None:
    embeddings, labels = blobs(4, 120, noise=0.8)
    for watch in (None, lambda _: None):
        linear = fit(embeddings, labels, 4, Options(solver, 100.0, 2, 1e-9), watch=watch)
        assert linear.iterations == 2 and not linear.converged


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg", "newton-cholesky"])
def test_a_start_at_the_goal_stays_there(solver: Any, classes: int) -> None:
    embeddings, labels = blobs(classes, 120)
    goal = fit(embeddings, labels, classes, EXACT)
    again = fit(embeddings, labels, classes, replace(EXACT, solver=solver, max_iter=3, tolerance=1e-4), start=goal)
    np.testing.assert_allclose(softmax(again.logits(embeddings)), softmax(goal.logits(embeddings)), atol=1e-2)


def test_the_loss_falls_along_the_way() -> None:
    embeddings, labels = blobs(4, 120)
    losses: list[float] = []
    linear = fit(embeddings, labels, 4, Options(), watch=lambda now: losses.append(loss(now, embeddings, labels)))
    assert losses[0] > losses[-1] and losses[-1] == pytest.approx(loss(linear, embeddings, labels))
    shares = softmax(linear.logits(embeddings))[np.arange(len(labels)), labels]
    assert losses[-1] == pytest.approx(-np.log(shares).mean())


def test_class_weights() -> None:
    labels = np.array([0] * 90 + [1] * 9 + [2])
    balanced = class_weights(labels, 3, "balanced")
    sums = np.bincount(labels, balanced)
    np.testing.assert_allclose(sums, sums[0])
    effective = class_weights(labels, 3, "effective")
    for weights in (balanced, effective, class_weights(labels, 3, "none")):
        assert weights.mean() == pytest.approx(1)
    number = (1 - 0.999**90) / (1 - 0.999)  # https://arxiv.org/abs/1901.05555
    assert effective[-1] / effective[0] == pytest.approx(number)


def test_hard_examples_count_more() -> None:
    request = HeadTraining(project=1)
    shares = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.6, 0.3, 0.1], [0.56, 0.43, 0.01], [0.1, 0.2, 0.7]])
    labels = np.array([0, 0, 0, 1, 2])
    assert hard_examples(shares, labels, request).tolist() == [1, 3, 2, 3, 1]
    inverted = request.model_copy(update={"mining_misclassified": 2.0, "mining_uncertain": 5.0})
    assert hard_examples(shares, labels, inverted).tolist() == [1, 2, 5, 5, 1]
    assert [mining_iterations(limit) for limit in (5, 100, 1000, 99_999)] == [5, 20, 200, 200]
