"""The class head: calibrated probabilities, abstention, and files that are whole or refused."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import save_file

from tator_ml.engine.crops import CropRecipe
from tator_ml.engine.head import METADATA_FILE, WEIGHTS_FILE, Head, HeadDamaged, HeadError, HeadMissing

RNG = np.random.default_rng(5)
HEAD = Head(
    classes=("Car", "Lkw", "Ähre"),
    weight=RNG.normal(0, 4, (3, 8)).astype(np.float32),
    bias=RNG.normal(0, 1, 3).astype(np.float32),
    temperature=1.5,
    threshold=0.6,
    margin=0.2,
    encoder="starter-clip-00000000",
    recipe=CropRecipe(0.1, False),
    version="head-1",
)
embeddings = arrays(np.float32, (4, 8), elements=st.floats(-1, 1, width=32))


@given(embeddings)
def test_probabilities_are_a_softmax_of_the_linear_map(points):
    logits = (points @ HEAD.weight.T + HEAD.bias) / 1.5
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = HEAD.probabilities(points)
    assert found.dtype == np.float32 and found.shape == (4, 3)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)


@given(embeddings, st.floats(0.1, 5), st.floats(1.1, 10))
def test_a_higher_temperature_is_less_sure_of_the_same_class(points, temperature, factor):
    sharp = replace(HEAD, temperature=temperature).probabilities(points)
    soft = replace(HEAD, temperature=temperature * factor).probabilities(points)
    assert (soft.max(1) <= sharp.max(1) + 1e-6).all()
    np.testing.assert_allclose(soft[np.arange(4), sharp.argmax(1)], soft.max(1), atol=1e-6)


def test_huge_logits_do_not_overflow():
    huge = replace(HEAD, weight=HEAD.weight * 1e6)
    assert np.isfinite(huge.probabilities(np.ones((1, 8), np.float32))).all()


def test_no_objects_no_probabilities():
    assert HEAD.probabilities(np.zeros((0, 8), np.float32)).shape == (0, 3)


@pytest.mark.parametrize(
    ("probabilities", "label"),
    [
        ((0.7, 0.2, 0.1), "Car"),
        ((0.1, 0.3, 0.6), "Ähre"),  # at the threshold
        ((0.3, 0.59, 0.11), None),  # below it
        ((0.39, 0.61, 0.0), "Lkw"),
        ((1.0, 0.0, 0.0), "Car"),
    ],
)
def test_it_abstains_below_the_threshold(probabilities, label):
    row = np.array(probabilities, np.float32)
    verdict = replace(HEAD, threshold=float(np.float32(0.6))).decide(row)
    assert verdict.label == label
    assert verdict.probability == row.max()


@pytest.mark.parametrize(("second", "answers"), [(0.25, True), (0.35, False)])
def test_it_abstains_where_two_classes_are_close(second, answers):
    verdict = replace(HEAD, threshold=0.1).decide(np.array([0.5, second, 0.5 - second], np.float32))
    assert (verdict.label == "Car") == answers and (verdict.label is None) != answers


@given(arrays(np.float32, 3, elements=st.floats(0, 1, width=32)))
def test_a_verdict_names_the_best_first(row):
    verdict = HEAD.decide(row)
    values = [value for _, value in verdict.top]
    assert values == sorted(values, reverse=True) and values[0] == verdict.probability
    assert dict(verdict.top) == dict(zip(HEAD.classes, row.tolist(), strict=True))
    assert verdict.label in (None, verdict.top[0][0])


def test_a_head_of_one_class_and_one_of_many():
    one = replace(HEAD, classes=("Car",), weight=HEAD.weight[:1], bias=HEAD.bias[:1])
    assert one.decide(one.probabilities(np.ones((1, 8), np.float32))[0]).label == "Car"
    many = replace(HEAD, classes=tuple("abcde"), weight=np.zeros((5, 8), np.float32), bias=one.bias.repeat(5))
    assert many.decide(np.array([0.1, 0.2, 0.4, 0.2, 0.1], np.float32)).top == (
        ("c", pytest.approx(0.4)),
        ("b", pytest.approx(0.2)),
        ("d", pytest.approx(0.2)),
    )


@settings(max_examples=25, deadline=None)
@given(arrays(np.float32, (2, 5), elements=st.floats(-100, 100, width=32)), st.booleans(), st.floats(0.01, 9))
def test_what_is_saved_is_loaded(tmp_path_factory, weight, square, temperature):
    folder = tmp_path_factory.mktemp("head") / "inner" / "v1"
    recipe, bias = CropRecipe(0.3, square), weight[:, 0].copy()
    head = Head(("a", "日本"), weight, bias, temperature, 0.25, 0.5, "enc", recipe, "v1")
    head.save(folder, {"accuracy": 0.5})
    head.save(folder)  # over the first one
    again = Head.load(folder)
    for name in ("classes", "temperature", "threshold", "margin", "encoder", "recipe", "version"):
        assert getattr(again, name) == getattr(head, name)
    assert (again.weight == weight).all() and (again.bias == bias).all()
    assert sorted(path.name for path in folder.iterdir()) == [METADATA_FILE, WEIGHTS_FILE]


def test_usual_areas_are_kept_and_asked_by_class(tmp_path):
    assert HEAD.usual_area("Car") is None
    replace(HEAD, areas=(0.2, 0.01, 1.0)).save(tmp_path)
    again = Head.load(tmp_path)
    assert [again.usual_area(name) for name in ("Car", "Lkw", "Ähre", "Boat")] == [0.2, 0.01, 1.0, None]


def test_metrics_and_label_map_are_in_the_json(tmp_path):
    HEAD.save(tmp_path, {"accuracy": 0.5})
    metadata = json.loads((tmp_path / METADATA_FILE).read_text())
    assert metadata["label_map"] == ["Car", "Lkw", "Ähre"] and metadata["metrics"] == {"accuracy": 0.5}


@pytest.mark.parametrize("name", [METADATA_FILE, WEIGHTS_FILE])
def test_a_missing_file_is_named(tmp_path, name):
    HEAD.save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(HeadMissing, match=name):
        Head.load(tmp_path)
    with pytest.raises(HeadMissing):
        Head.load(tmp_path / "nowhere")


@pytest.mark.parametrize("name", [METADATA_FILE, WEIGHTS_FILE])
def test_a_damaged_file_is_refused(tmp_path, name):
    HEAD.save(tmp_path)
    whole = (tmp_path / name).read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    for content in (b"", whole[: len(whole) // 2], bytes(flipped), b"[]", b'"text"', b"\x80\x04N."):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(HeadDamaged):
            Head.load(tmp_path)


def change(folder, **values):
    path = folder / METADATA_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    "values",
    [
        {"label_map": ["Car", "Lkw"]},
        {"label_map": ["Car", "Car", "Lkw"]},
        {"label_map": "abc"},
        {"format": "tator-head-2"},
        {"temperature": 0},
        {"temperature": float("nan")},
        {"threshold": 1.2},
        {"margin": None},
        {"recipe": {"margin": -1, "square": True}},
        {"recipe": {}},
        {"areas": [0.1]},
        {"areas": [0.1, 0.2, 0.0]},
        {"areas": [0.1, 0.2, "large"]},
        {"weights_sha256": "0" * 64},
    ],
)
def test_metadata_that_does_not_fit_is_refused(tmp_path, values):
    HEAD.save(tmp_path)
    change(tmp_path, **values)
    with pytest.raises(HeadDamaged):
        Head.load(tmp_path)


def test_weights_of_another_head_are_refused(tmp_path):
    """As after a crash between the two files: new weights, old label map."""
    HEAD.save(tmp_path)
    save_file({"weight": HEAD.weight + 1, "bias": HEAD.bias}, tmp_path / WEIGHTS_FILE)
    with pytest.raises(HeadDamaged, match="not those it was saved with"):
        Head.load(tmp_path)


@pytest.mark.parametrize(
    "values",
    [
        {"classes": ()},
        {"weight": np.zeros((2, 8), np.float32)},
        {"weight": np.zeros((3, 8))},
        {"bias": np.zeros((3, 1), np.float32)},
        {"weight": np.full((3, 8), np.nan, np.float32)},
        {"areas": (0.5, 0.5)},
        {"areas": (0.5, 0.5, 1.5)},
        {"areas": (0.5, 0.5, float("nan"))},
    ],
)
def test_a_head_that_does_not_fit_itself_is_not_made(values):
    with pytest.raises(HeadDamaged):
        replace(HEAD, **values)


def test_embeddings_of_another_encoder_are_refused():
    with pytest.raises(HeadError, match="length 8"):
        HEAD.probabilities(np.zeros((1, 512), np.float32))
    with pytest.raises(HeadError, match="3 probabilities"):
        HEAD.decide(np.zeros(4, np.float32))


def test_no_torch_is_needed():
    code = "import sys, tator_ml.engine.head, tator_ml.engine.encoders; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
