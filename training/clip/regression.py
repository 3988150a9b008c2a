"""Multinomial logistic regression with a trace of its convergence.

L-BFGS runs here over scikit-learn's objective, uninterrupted, with SciPy's callback for the trace, so that
tracing changes no coefficient. The other solvers are scikit-learn's, continued from their own coefficients
(``warm_start``) in ever longer stretches where a trace is asked for.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp

from tator_sdk.requests import Solver

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Linear:
    """Coefficients (C, D) and intercepts (C,) of C classes, float64; rows of a missing class are an error."""

    weight: Floats
    bias: Floats
    iterations: int = 0
    converged: bool = True
    note: str | None = None

    def logits(self, embeddings: NDArray[np.floating]) -> Floats:
        """(N, D) → (N, C)."""
        return np.asarray(embeddings @ self.weight.T + self.bias, np.float64)


Watch = Callable[[Linear], None]
"""Is shown the coefficients after each iteration, or each stretch of them; may raise to end the fit."""


@dataclass(frozen=True)
class Options:
    """How to optimise; names and meaning are scikit-learn's."""

    solver: Solver = "lbfgs"
    inverse_regularization: float = 1.0
    max_iter: int = 1000
    tolerance: float = 1e-4
    seed: int = 42


def fit(
    embeddings: NDArray[np.floating],
    labels: Labels,
    classes: int,
    options: Options,
    weights: Floats | None = None,
    start: Linear | None = None,
    watch: Watch | None = None,
) -> Linear:
    """Fit ``classes`` classes.

    Args:
        embeddings: (N, D).
        labels: (N,) in 0..classes-1; every class occurs.
        classes: at least 2.
        options: solver and when it stops.
        weights: (N,) of the examples, above 0; all 1 by default.
        start: coefficients to begin with, where the solver can; zeros by default.
        watch: is shown the way.

    Returns:
        Coefficients of every class, two rows for two classes as well: a softmax over them gives the same
        probabilities as scikit-learn's.
    """
    features = np.ascontiguousarray(embeddings, np.float64)
    weights = np.ones(len(labels)) if weights is None else np.asarray(weights, np.float64)
    if options.solver == "lbfgs":
        return _lbfgs(features, labels, classes, options, weights, start, watch)
    if options.solver == "liblinear":
        return _one_against_rest(features, labels, classes, options, weights, watch)
    return _scikit(features, labels, classes, options, weights, start, watch)


def loss(linear: Linear, embeddings: NDArray[np.floating], labels: Labels) -> float:
    """Mean negative log-likelihood of the labels."""
    logits = linear.logits(embeddings)
    return float((logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]).mean())


def _lbfgs(
    features: Floats, labels: Labels, classes: int, options: Options, weights: Floats,
    start: Linear | None, watch: Watch | None,
) -> Linear:  # fmt: skip
    """Scikit-learn's objective (``_logistic_regression_path``): weighted mean loss, L2 on all but intercepts."""
    dim, total = features.shape[1], weights.sum()
    penalty = 1 / (options.inverse_regularization * total)
    if classes == 2:  # two symmetric rows hold half of what one row would: the same penalty on their difference
        penalty *= 2
    truth = np.zeros((len(labels), classes))
    truth[np.arange(len(labels)), labels] = 1
    shares = (weights / total)[:, None]
    steps = 0

    def unpacked(flat: Floats) -> tuple[Floats, Floats]:
        both = flat.reshape(classes, dim + 1)
        return both[:, :dim], both[:, dim]

    def objective(flat: Floats) -> tuple[float, Floats]:
        weight, bias = unpacked(flat)
        logits = features @ weight.T + bias
        norm = logsumexp(logits, axis=1, keepdims=True)
        value = float((shares * (norm - (logits * truth).sum(1, keepdims=True))).sum())
        off = shares * (np.exp(logits - norm) - truth)
        gradient = np.concatenate([off.T @ features + penalty * weight, off.sum(0)[:, None]], axis=1)
        return value + 0.5 * penalty * float((weight**2).sum()), gradient.ravel()

    def shown(flat: Floats) -> None:
        nonlocal steps
        steps += 1
        if watch is not None:
            weight, bias = unpacked(flat)
            watch(Linear(weight.copy(), bias.copy(), steps, False))

    first = np.zeros((classes, dim + 1))
    if start is not None:
        first[:] = np.concatenate([start.weight, start.bias[:, None]], axis=1)
    limits = {"maxiter": options.max_iter, "maxls": 50, "gtol": options.tolerance, "ftol": 64 * np.finfo(float).eps}
    found = minimize(objective, first.ravel(), method="L-BFGS-B", jac=True, options=limits, callback=shown)
    weight, bias = unpacked(found.x)
    return Linear(weight, bias, int(found.nit), bool(found.success))


def _scikit(
    features: Floats, labels: Labels, classes: int, options: Options, weights: Floats,
    start: Linear | None, watch: Watch | None,
) -> Linear:  # fmt: skip
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    largest = weights.max()  # sag and saga take steps that are too long for weights above 1, and diverge
    model: Any = LogisticRegression(
        C=options.inverse_regularization * largest,
        solver=options.solver,
        tol=options.tolerance,
        random_state=options.seed,
        warm_start=watch is not None or start is not None,
    )
    if start is not None:
        both = classes == 2
        model.classes_ = np.arange(classes)
        model.coef_ = (start.weight[1:] - start.weight[:1]) if both else start.weight.copy()
        model.intercept_ = (start.bias[1:] - start.bias[:1]) if both else start.bias.copy()
    done, stretch = 0, 1 if watch is not None else options.max_iter
    while True:
        model.max_iter = min(stretch, options.max_iter - done)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # expected of a stretch; reported at the end
            model.fit(features, labels, sample_weight=weights / largest)
        taken = int(np.max(model.n_iter_))
        done += taken
        converged = taken < model.max_iter
        linear = Linear(*_rows(model.coef_, model.intercept_), done, converged)
        if watch is not None:
            watch(linear)
        if converged or done >= options.max_iter:
            return linear
        if done >= 10:  # the first ones are the interesting ones; each new stretch costs a start
            stretch *= 2


def _one_against_rest(
    features: Floats, labels: Labels, classes: int, options: Options, weights: Floats, watch: Watch | None
) -> Linear:
    """Liblinear knows two classes only: one regression for each class, against all others."""
    from sklearn.linear_model import LogisticRegression

    def fitted(labels: NDArray[Any]) -> Any:
        return LogisticRegression(
            C=options.inverse_regularization, solver="liblinear", tol=options.tolerance,
            max_iter=options.max_iter, random_state=options.seed,
        ).fit(features, labels, sample_weight=weights)  # fmt: skip

    if classes == 2:  # one regression decides between two
        models = [fitted(labels)]
        rows, note = _rows(models[0].coef_, models[0].intercept_), None
    else:
        models = [fitted(labels == index) for index in range(classes)]
        rows = np.concatenate([one.coef_ for one in models]), np.concatenate([one.intercept_ for one in models])
        note = "liblinear cannot do several classes: one regression a class, against the rest"
    iterations = max(int(np.max(one.n_iter_)) for one in models)
    linear = Linear(*rows, iterations, iterations < options.max_iter, note)
    if watch is not None:
        watch(linear)
    return linear


def _rows(coefficients: Floats, intercepts: Floats) -> tuple[Floats, Floats]:
    """Scikit-learn's one row for two classes → two symmetric rows."""
    if len(coefficients) > 1:
        return coefficients.astype(np.float64), intercepts.astype(np.float64)
    return (
        np.concatenate([-coefficients / 2, coefficients / 2]).astype(np.float64),
        np.concatenate([-intercepts / 2, intercepts / 2]).astype(np.float64),
    )
