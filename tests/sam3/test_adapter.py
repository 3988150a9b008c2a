"""SAM 3's adapter gives what upstream's models and processors give on the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tator_ml.engine.concepts import Concept
from tator_ml.engine.segmenters.base import FindsConcepts, Pausable, Prompts
from tator_ml.engine.segmenters.half import HalfPrecision
from tator_ml.engine.segmenters.sam3 import Sam3Segmenter, load
from tests.adapters.material import assert_same_from_disk, assert_threads_do_not_meet
from tests.sam3.engine_material import drawn_folder, picture, upstream_detector, upstream_tracker

CLOSE = {"atol": 1e-4, "rtol": 1e-4}
SEEDS = (0, 1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    parent = tmp_path_factory.mktemp("adapter")
    return {seed: drawn_folder(parent, seed) for seed in SEEDS}


@pytest.fixture(scope="module")
def ours(folders: dict[int, Path]) -> dict[int, Sam3Segmenter]:
    return {seed: load(folder, "cpu", "sam3") for seed, folder in folders.items()}


@pytest.fixture(scope="module")
def trackers(folders: dict[int, Path]) -> dict[int, tuple[Any, Any]]:
    return {seed: upstream_tracker(folder) for seed, folder in folders.items()}


@pytest.fixture(scope="module")
def detectors(folders: dict[int, Path]) -> dict[int, tuple[Any, Any]]:
    return {seed: upstream_detector(folder) for seed, folder in folders.items()}


PROMPTS = {
    "point": {"points": [[[40.0, 30.0]]], "labels": [[1]]},
    "points": {"points": [[[40.0, 30.0], [100.0, 61.5], [2.0, 88.0]]], "labels": [[1, 0, 1]]},
    "objects": {"points": [[[40.0, 30.0], [7.0, 9.0]], [[120.0, 10.0], [60.0, 70.0]]], "labels": [[1, 1], [1, 0]]},
    "box": {"boxes": [[20.0, 10.0, 90.0, 70.5]]},
    "boxes": {"boxes": [[20.0, 10.0, 90.0, 70.5], [0.0, 0.0, 150.0, 90.0], [99.0, 50.0, 120.0, 71.0]]},
    "box and points": {"points": [[[40.0, 30.0]]], "labels": [[0]], "boxes": [[20.0, 10.0, 90.0, 70.5]]},
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize("kind", PROMPTS)
def test_clicks_are_answered_as_upstream(ours: Any, trackers: Any, kind: str, multimask: bool, seed: int) -> None:
    image, given, segmenter = picture(seed), PROMPTS[kind], ours[seed]
    model, processor = trackers[seed]
    inputs = processor(
        images=image,
        input_points=[given["points"]] if "points" in given else None,
        input_labels=[given["labels"]] if "labels" in given else None,
        input_boxes=[given["boxes"]] if "boxes" in given else None,
        return_tensors="pt",
    )
    sizes = inputs.pop("original_sizes")
    with torch.no_grad():
        expected = model(**inputs, multimask_output=multimask)
    embedding = segmenter.encode(image)
    prompts = Prompts(
        np.array(given["points"], np.float32) if "points" in given else None,
        np.array(given["labels"], np.int64) if "labels" in given else None,
        np.array(given["boxes"], np.float32) if "boxes" in given else None,
    )
    found = segmenter.decode(embedding, prompts, multimask)
    torch.testing.assert_close(found.iou, expected.iou_scores[0], **CLOSE)
    torch.testing.assert_close(found.low_res, expected.pred_masks[0], **CLOSE)
    assert float(expected.pred_masks.std()) > 0.1, "a constant answer proves nothing"
    whole = processor.post_process_masks(expected.pred_masks[0][None], sizes, binarize=False)[0]
    torch.testing.assert_close(segmenter.full_size(embedding, found.low_res[0]), whole[0], **CLOSE)


BOX, OTHER, NOT = (20.0, 10.0, 90.0, 70.5), (100.0, 40.0, 140.0, 80.0), (3.0, 5.0, 30.0, 44.0)
CONCEPTS = {
    "phrase": (Concept("red circle"), {"text": "red circle"}),
    "exemplar": (Concept("", (BOX,)), {"input_boxes": [[list(BOX)]]}),
    "exemplars": (
        Concept("", (BOX, OTHER), (NOT,)),
        {"input_boxes": [[list(BOX), list(OTHER), list(NOT)]], "input_boxes_labels": [[1, 1, 0]]},
    ),
    "phrase and boxes": (
        Concept("blue square", (BOX,), (NOT,)),
        {"text": "blue square", "input_boxes": [[list(BOX), list(NOT)]], "input_boxes_labels": [[1, 0]]},
    ),
    "phrase and what is not meant": (
        Concept("blue square", (), (NOT,)),
        {"text": "blue square", "input_boxes": [[list(NOT)]], "input_boxes_labels": [[0]]},
    ),
}


def as_upstream(model: Any, processor: Any, image: Any, threshold: float, **inputs: Any) -> dict[str, Any]:
    prepared = processor(images=image, return_tensors="pt", **inputs)
    sizes = prepared.pop("original_sizes").tolist()
    with torch.no_grad():
        out = model(**prepared)
    answer: dict[str, Any] = processor.post_process_instance_segmentation(out, threshold, 0.5, sizes)[0]
    return answer


def kept(segmenter: Any, image: Any, concepts: list[Concept], threshold: float) -> list[tuple[Any, ...]]:
    finder, embedding = segmenter.concepts(), segmenter.encode(image)
    seen = finder.look(embedding, masks=True)
    answers = []
    for one in finder.find(seen, concepts, masks=True):
        over = one.scores > threshold
        masks = finder.full_size(one.masks[over], embedding.size_wh) > 0.5
        answers.append((one.scores[over], one.xyxy[over], masks))
    return answers


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", CONCEPTS)
def test_concepts_are_found_as_upstream(ours: Any, detectors: Any, kind: str, seed: int) -> None:
    image = picture(seed + 10)
    concept, inputs = CONCEPTS[kind]
    expected = as_upstream(*detectors[seed], image, 0.0, **inputs)
    assert len(expected["scores"]) and float(expected["boxes"].std(0).max()) > 1
    ((scores, boxes, masks),) = kept(ours[seed], image, [concept], 0.0)
    torch.testing.assert_close(scores, expected["scores"], **CLOSE)
    torch.testing.assert_close(boxes, expected["boxes"], atol=1e-2, rtol=1e-4)  # pixels
    assert float((masks != expected["masks"].bool()).float().mean()) < 1e-4
    assert 0.01 < float(masks.float().mean()) < 0.99


def test_several_at_once_are_found_as_each_alone(ours: Any, detectors: Any) -> None:
    image = picture(3)
    found = kept(ours[0], image, [concept for concept, _ in CONCEPTS.values()] + [Concept("green star")], 0.0)
    expected = [as_upstream(*detectors[0], image, 0.0, **inputs) for _, inputs in CONCEPTS.values()]
    expected.append(as_upstream(*detectors[0], image, 0.0, text="green star"))
    for (scores, boxes, _), upstream in zip(found, expected, strict=True):
        torch.testing.assert_close(scores, upstream["scores"], **CLOSE)
        torch.testing.assert_close(boxes, upstream["boxes"], atol=1e-2, rtol=1e-4)


def test_without_masks_the_same_is_found(ours: Any) -> None:
    finder, embedding = ours[0].concepts(), ours[0].encode(picture())
    concepts = [Concept("red circle"), Concept("", (BOX,))]
    whole = finder.find(finder.look(embedding, masks=True), concepts, masks=True)
    boxes = finder.find(finder.look(embedding, masks=False), concepts, masks=False)
    for one, other in zip(whole, boxes, strict=True):
        assert other.masks is None and one.masks is not None
        assert torch.equal(one.scores, other.scores) and torch.equal(one.xyxy, other.xyxy)


def test_a_phrase_is_encoded_once_and_a_long_one_is_cut(ours: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = ours[1]
    finder, asked = segmenter.concepts(), []
    real = segmenter.sam.detector.get_text_features

    def counted(ids: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append(tuple(ids.shape))
        return real(ids, *args, **kwargs)

    monkeypatch.setattr(segmenter.sam.detector, "get_text_features", counted)
    long = "a very long description of something " * 9
    classes = [Concept("first class"), Concept("second class"), Concept("first class"), Concept(long)]
    for seed in range(3):
        seen = finder.look(segmenter.encode(picture(seed)), masks=False)
        found = finder.find(seen, classes, masks=False)
        assert torch.equal(found[0].scores, found[2].scores)
        assert bool(torch.isfinite(found[3].scores).all())
    assert asked == [(3, 32)]


def test_phrases_asked_for_longest_ago_are_forgotten(ours: Any) -> None:
    finder = ours[0].concepts()
    phrases = type(finder._phrases)(ours[0].sam.detector, ours[0].sam.processor.tokenizer, kept=2)
    for phrase in ("a", "b", "a", "c"):
        phrases.features([phrase])
    assert list(phrases._known) == ["a", "c"]


def test_the_tower_is_there_once_and_pauses(ours: Any) -> None:
    sam = ours[0].sam
    assert sam.tracker.vision_encoder.backbone is sam.detector.vision_encoder.backbone
    ran: list[int] = []
    hooks = [part.register_forward_pre_hook(lambda *_: ran.append(1)) for part in ours[0].parts()]
    ours[0].encode(picture())
    for hook in hooks:
        hook.remove()
    assert isinstance(ours[0], Pausable) and isinstance(ours[0], FindsConcepts)
    assert len(ran) == len(hooks) == 2


def test_half_precision_encodes_only(ours: Any) -> None:
    half = HalfPrecision(ours[0], "bfloat16", "cpu")
    assert list(half.parts()) == ours[0].parts() and half.concepts() is ours[0].concepts()
    made, full = half.encode(picture()), ours[0].encode(picture())
    assert made.model == half.version != full.model
    assert {tensor.dtype for tensor in made.tensors.values()} == {torch.float32}
    finder = half.concepts()
    assert finder is not None
    near = [
        finder.find(finder.look(one, masks=True), [Concept("red circle")], masks=True)[0].scores for one in (made, full)
    ]
    assert 0 < float((near[0] - near[1]).abs().max()) < 0.2


@pytest.mark.parametrize("size_wh", [(3, 3), (1, 40), (600, 2)])
def test_pictures_of_any_size(ours: Any, size_wh: tuple[int, int]) -> None:
    embedding = ours[0].encode(picture(size_wh=size_wh))
    found = ours[0].decode(embedding, Prompts(np.array([[[0.0, 0.0]]], np.float32), np.array([[1]])), True)
    assert ours[0].full_size(embedding, found.low_res[0]).shape == (3, size_wh[1], size_wh[0])


def test_the_disk_and_threads(ours: Any, tmp_path: Path) -> None:
    assert_same_from_disk(ours[0], tmp_path)
    assert_threads_do_not_meet(ours[0])
