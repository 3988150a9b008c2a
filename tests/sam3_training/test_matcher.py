"""Matching: the cheapest assignment of all there are, and several queries for an object."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from training.sam3.matcher import Costs, match, match_many, pairwise_cost

COSTS = Costs()


def boxes(count: int, generator: torch.Generator) -> torch.Tensor:
    return torch.cat([torch.rand(count, 2, generator=generator), 0.05 + torch.rand(count, 2, generator=generator)], 1)


@pytest.mark.parametrize("seed", range(20))
def test_it_is_the_cheapest_of_all_assignments(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    queries, counts = 4, (seed % 4, 0, 3)
    logits, found = torch.randn(3, queries, generator=generator), boxes(3 * queries, generator).view(3, queries, 4)
    targets = boxes(sum(counts), generator)
    question = torch.tensor([row for row, count in enumerate(counts) for _ in range(count)], dtype=torch.long)
    matches = match(logits, found, targets, question, COSTS)
    assert matches.target.sort().values.tolist() == list(range(sum(counts)))
    for row, count in enumerate(counts):
        mine = matches.question == row
        assert len(set(matches.query[mine].tolist())) == count == int(mine.sum())
        assert (question[matches.target[mine]] == row).all()
        cost = pairwise_cost(logits[row], found[row], targets[question == row], COSTS)
        best = min(
            sum(float(cost[query, n]) for n, query in enumerate(chosen))
            for chosen in itertools.permutations(range(queries), count)
        )
        first = sum(counts[:row])
        paid = sum(float(cost[q, t - first]) for q, t in zip(matches.query[mine], matches.target[mine], strict=True))
        assert paid == pytest.approx(best, abs=1e-5)


def test_with_more_objects_than_queries_every_query_has_one() -> None:
    generator = torch.Generator().manual_seed(0)
    matches = match(
        torch.zeros(1, 3), boxes(3, generator)[None], boxes(7, generator), torch.zeros(7, dtype=torch.long), COSTS
    )
    assert sorted(matches.query.tolist()) == [0, 1, 2] and len(set(matches.target.tolist())) == 3


def test_a_pairs_cost_is_focal_l1_and_giou() -> None:
    logits, box, target = (
        torch.tensor([0.3]),
        torch.tensor([[0.3, 0.5, 0.2, 0.2]]),
        torch.tensor([[0.6, 0.5, 0.2, 0.4]]),
    )
    p = 1 / (1 + math.exp(-0.3))
    score = -0.25 * (1 - p) ** 2 * math.log(p) + 0.75 * p**2 * math.log(1 - p)
    apart = 0.3 + 0.2
    union, hull = 0.04 + 0.08, 0.5 * 0.4  # they do not touch
    giou = 0 - (hull - union) / hull
    assert float(pairwise_cost(logits, box, target, COSTS)) == pytest.approx(2 * score + 5 * apart - 2 * giou, abs=1e-6)


def test_numbers_that_are_none_do_not_stop_it() -> None:
    found = torch.tensor([[[0.5, 0.5, 0.2, 0.2], [math.nan] * 4]])
    matches = match(torch.zeros(1, 2), found, torch.tensor([[0.5, 0.5, 0.2, 0.2]]), torch.zeros(1).long(), COSTS)
    assert matches.query.tolist() == [0]


def test_an_object_has_all_queries_that_fit_well() -> None:
    target = torch.tensor([[0.5, 0.5, 0.4, 0.4]])
    off = torch.tensor([0.0, 0.02, 0.04, 0.06, 0.08, 0.5])
    found = target.repeat(6, 1)
    found[:, 0] += off
    matches = match_many(torch.zeros(2, 6), found.expand(2, 6, 4), target, torch.tensor([1]))
    assert matches.question.tolist() == [1] * 4 and sorted(matches.query.tolist()) == [0, 1, 2, 3]
    found[2:, 0] = 0.95  # two fit; the others do not, though four may
    matches = match_many(torch.zeros(2, 6), found.expand(2, 6, 4), target, torch.tensor([1]))
    assert sorted(matches.query.tolist()) == [0, 1]


def test_nothing_to_find_matches_nothing() -> None:
    none = torch.zeros(0, dtype=torch.long)
    for found in (
        match(torch.zeros(2, 3), torch.rand(2, 3, 4), torch.zeros(0, 4), none, COSTS),
        match_many(torch.zeros(2, 3), torch.rand(2, 3, 4), torch.zeros(0, 4), none),
    ):
        assert not len(found.question) and not len(found.query) and not len(found.target)
