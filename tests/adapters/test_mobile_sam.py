"""MobileSAM against the published architecture, driven by ``segment_anything.SamPredictor``."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from segment_anything import SamPredictor
from segment_anything.modeling import Sam

from tator_ml.engine.segmenters import load, mobile_sam
from tator_ml.engine.segmenters.base import Segmenter
from tator_ml.engine.segmenters.sam1 import Sam1Segmenter
from tests.adapters.material import (
    answer_of,
    assert_same,
    assert_same_from_disk,
    assert_storable,
    assert_threads_do_not_meet,
    picture,
    prompts_on,
    random_state,
)
from tests.adapters.published_mobile_sam import published_mobile_sam
from tests.adapters.upstream_sam1 import upstream_answer

# At 208 the grids are 52, 26 and 13 cells: windows of 7 and 14 need padding, as they do at 1024.
SIDE = 208


def published(folder: Path, seed: int, side: int = SIDE) -> tuple[Sam, Path]:
    """The reference and its file."""
    sam = published_mobile_sam(side)
    sam.load_state_dict(random_state(sam, seed))
    path = folder / "mobile_sam.pt"
    torch.save(sam.state_dict(), path)
    return sam, path


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """All weights as published; only the square is smaller."""
    monkeypatch.setattr(mobile_sam, "IMAGE_SIZE", SIDE)


def loaded(path: Path) -> Segmenter:
    return load("mobile_sam", str(path), path.parent, "cpu", offline=True)


def test_the_reference_has_the_published_names() -> None:
    """A few names of the published file, by hand, so that reference and adapter cannot err together."""
    keys = published_mobile_sam(SIDE).state_dict().keys()
    assert {
        "image_encoder.patch_embed.seq.0.c.weight",
        "image_encoder.patch_embed.seq.2.bn.running_var",
        "image_encoder.layers.0.blocks.1.conv3.bn.weight",
        "image_encoder.layers.0.downsample.conv1.c.weight",
        "image_encoder.layers.1.blocks.0.attn.attention_biases",
        "image_encoder.layers.2.blocks.5.local_conv.c.weight",
        "image_encoder.layers.2.downsample.conv2.bn.num_batches_tracked",
        "image_encoder.layers.3.blocks.1.mlp.fc2.bias",
        "image_encoder.norm_head.weight",
        "image_encoder.head.weight",
        "image_encoder.neck.3.bias",
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
        "mask_decoder.iou_prediction_head.layers.2.weight",
    } <= keys


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("seed", "size_wh"), [(0, (517, 333)), (1, (41, 900)), (2, (64, 64))])
def test_answers_are_those_of_the_predictor(tmp_path: Path, seed: int, size_wh: tuple[int, int]) -> None:
    reference, path = published(tmp_path, seed)
    segmenter = loaded(path)
    predictor = SamPredictor(reference)
    image = picture(size_wh, seed)
    embedding = segmenter.encode(image)
    assert_storable(embedding, size_wh)
    for name, prompts in prompts_on(size_wh).items():
        multimask = name != "box"
        ours = answer_of(segmenter, embedding, prompts, multimask)
        assert_same(ours, upstream_answer(predictor, image, prompts, multimask))


@pytest.mark.usefixtures("small")
def test_half_precision_on_disk_gives_the_same_masks(tmp_path: Path) -> None:
    assert_same_from_disk(loaded(published(tmp_path, 0)[1]), tmp_path)


@pytest.mark.usefixtures("small")
def test_threads_do_not_meet(tmp_path: Path) -> None:
    assert_threads_do_not_meet(loaded(published(tmp_path, 0)[1]))


@pytest.mark.usefixtures("small")
def test_safetensors_and_files_that_keep_the_bias_indices(tmp_path: Path) -> None:
    reference, path = published(tmp_path, 3)
    state = reference.state_dict()
    state["image_encoder.layers.1.blocks.0.attn.attention_bias_idxs"] = torch.zeros(49, 49, dtype=torch.int64)
    save_file(state, tmp_path / "mobile_sam.safetensors")
    image, prompts = picture((50, 70)), prompts_on((50, 70))["box"]
    answers = []
    for file in (path, tmp_path / "mobile_sam.safetensors"):
        segmenter = loaded(file)
        answers.append(answer_of(segmenter, segmenter.encode(image), prompts, multimask=True))
    assert_same(*answers)


def test_the_real_size(tmp_path: Path) -> None:
    """The published architecture end to end, but for the later of alike blocks: when small, all are there."""
    reference, _ = published(tmp_path, 4, side=1024)
    segmenter = load("mobile_sam", None, tmp_path, "cpu", offline=True)
    assert isinstance(segmenter, Sam1Segmenter)
    for stage in (*segmenter.sam.image_encoder.vit.stages, *reference.image_encoder.layers):
        stage.blocks = stage.blocks[:1]
    size_wh = (333, 517)
    image, prompts = picture(size_wh), prompts_on(size_wh)["box and point"]
    embedding = segmenter.encode(image)
    assert embedding.tensors["image_embed"].shape == (1, 256, 64, 64)
    assert segmenter.version.startswith("mobile_sam-")
    answer = answer_of(segmenter, embedding, prompts, multimask=True)
    assert answer.low_res.shape == (1, 3, 256, 256)
    assert_same(answer, upstream_answer(SamPredictor(reference), image, prompts, multimask=True))
