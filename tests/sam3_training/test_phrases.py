"""What is asked of a picture: present classes by any of their phrases, absent ones in vain, exemplars."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tests.sam3_training.material import request, sample, samples
from training.sam3.phrases import VISUAL, PhraseError, ask, draw, phrases_of
from training.samples import Sample

PHRASES = {
    "car": ("car", "auto", "vehicle"), "bus": ("bus", "vehicle"), "tree": ("tree",), "dog": ("dog", "hound"),
}  # fmt: skip
SCENE = sample("1", [("car", (0, 0, 10, 10)), ("car", (20, 0, 30, 10)), ("bus", (40, 40, 60, 60))])


def drawn(of: Sample = SCENE, count: int = 400, **changes: object) -> list[tuple[str, ...]]:
    wanted = request(**changes)
    return [
        tuple(one.phrase for one in draw(of, PHRASES, wanted, np.random.default_rng([seed]))) for seed in range(count)
    ]


def test_a_class_has_its_names_of_the_configuration_first_and_those_of_the_request_last() -> None:
    data = replace(samples(), names={"car": ("automobile", "car")})
    found = phrases_of(data, request(phrases=("car=small red car", "bus = coach")))
    assert found == {"car": ("automobile", "car", "small red car"), "bus": ("bus", "coach")}
    with pytest.raises(PhraseError, match="tram"):
        phrases_of(data, request(phrases=("tram=tramway",)))


def test_every_present_class_is_asked_for_by_each_of_its_phrases_in_turn() -> None:
    found = drawn(negatives=0)
    seen = Counter(phrase for some in found for phrase in some)
    assert set(seen) == {"car", "auto", "vehicle", "bus"}
    assert 0.25 < seen["auto"] / len(found) < 0.42 and 0.4 < seen["bus"] / len(found) < 0.6
    for some in found:  # two classes, which one phrase may name at once
        assert len(some) == 2 or some == ("vehicle",)


def test_phrases_in_vain_are_of_absent_classes_alone() -> None:
    for some in drawn(negatives=1.0):
        vain = [phrase for phrase in some if phrase in {"tree", "dog", "hound"}]
        assert len(vain) == len(some) - len(vain)
    for seed in range(20):
        for one in draw(SCENE, PHRASES, request(negatives=3), np.random.default_rng(seed)):
            assert (one.phrase in {"tree", "dog", "hound"}) == (not one.objects)
    counts = [len(some) for some in drawn(negatives=0.25) if "vehicle" not in some]
    assert set(counts) == {2, 3} and 0.4 < np.mean(counts) - 2 < 0.6  # a quarter of two is half a phrase


def test_nothing_on_it_is_still_asked_about() -> None:
    assert all(len(some) == 1 for some in drawn(sample("2", []), negatives=0))


def test_present_classes_come_first_where_there_are_too_many() -> None:
    for some in drawn(most_questions=2):
        assert len(some) == 2 and ("vehicle" in some or not {"tree", "dog", "hound"} & set(some))
    assert {len(some) for some in drawn(most_questions=1, negatives=5)} == {1}


def test_a_phrase_of_two_classes_is_answered_by_the_objects_of_both() -> None:
    assert [one.label for one in ask(SCENE, "vehicle", PHRASES).objects] == ["car", "car", "bus"]
    assert [one.label for one in ask(SCENE, "auto", PHRASES).objects] == ["car", "car"]


def test_exemplars_are_some_of_the_objects_about_where_they_are() -> None:
    wanted = request(exemplars=1.0, negatives=0)
    against = 0
    for seed in range(50):
        for one in draw(SCENE, PHRASES, wanted, np.random.default_rng(seed)):
            assert one.phrase == VISUAL and 1 <= len(one.exemplars) <= 3 and len(one.exemplars) <= len(one.objects)
            for box in one.exemplars:
                near = [max(abs(a - b) for a, b in zip(box, thing.box, strict=True)) for thing in one.objects]
                assert min(near) <= 4  # a fifth of the longest side
            others = [thing for thing in SCENE.objects if thing not in one.objects]
            assert len(one.negatives) <= len(others)
            against += len(one.negatives)
    assert against
    some = request(exemplars=0.25, negatives=0)
    asked = [draw(SCENE, PHRASES, some, np.random.default_rng(seed)) for seed in range(200)]
    shares = [one.phrase == VISUAL for questions in asked for one in questions]
    assert 0.18 < np.mean(shares) < 0.32
