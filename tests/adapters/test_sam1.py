"""SAM 1 against ``segment_anything.SamPredictor`` on the same file."""

from __future__ import annotations

from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from segment_anything import SamPredictor, sam_model_registry
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import nn

from tator_ml.engine.segmenters import load
from tator_ml.engine.segmenters.base import Prompts, Segmenter
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
    without_first_weights,
)
from tests.adapters.upstream_sam1 import upstream_answer

WIDTH, SIDE = 32, 160


def small_sam(checkpoint: str | None = None) -> Sam:
    """The published architecture with small numbers; windows that need padding, a global block."""
    sam = Sam(
        ImageEncoderViT(
            img_size=SIDE,
            embed_dim=24,
            depth=3,
            num_heads=2,
            out_chans=WIDTH,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=4,
            global_attn_indexes=(1,),
        ),
        PromptEncoder(WIDTH, (SIDE // 16, SIDE // 16), (SIDE, SIDE), 16),
        MaskDecoder(
            transformer_dim=WIDTH,
            transformer=TwoWayTransformer(depth=2, embedding_dim=WIDTH, num_heads=4, mlp_dim=64),
            iou_head_hidden_dim=WIDTH,
        ),
    )
    if checkpoint is not None:
        sam.load_state_dict(torch.load(checkpoint, weights_only=True))
    return sam.eval()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """``vit_b`` is small, for upstream and for us."""
    monkeypatch.setitem(sam_model_registry, "vit_b", small_sam)


def saved(folder: Path, seed: int) -> Path:
    path = folder / "sam_vit_b_01ec64.pth"
    torch.save(random_state(small_sam(), seed), path)
    return path


def loaded(path: Path) -> Segmenter:
    return load("sam1-vit_b", str(path), path.parent, "cpu", offline=True)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("size_wh", [(517, 333), (64, 64), (41, 900), (30, 20)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_answers_are_those_of_the_predictor(tmp_path: Path, seed: int, size_wh: tuple[int, int]) -> None:
    path = saved(tmp_path, seed)
    segmenter = loaded(path)
    predictor = SamPredictor(sam_model_registry["vit_b"](checkpoint=path))
    image = picture(size_wh, seed)
    embedding = segmenter.encode(image)
    assert_storable(embedding, size_wh)
    for prompts in prompts_on(size_wh).values():
        for multimask in (True, False):
            ours = answer_of(segmenter, embedding, prompts, multimask)
            assert ours.iou.shape == (len(prompts), 3 if multimask else 1)
            assert_same(ours, upstream_answer(predictor, image, prompts, multimask))


@pytest.mark.usefixtures("small")
def test_where_and_what_the_prompt_is_matters(tmp_path: Path) -> None:
    """Guards the comparison above: a model deaf to prompts would pass it."""
    segmenter = loaded(saved(tmp_path, 0))
    embedding = segmenter.encode(picture((100, 80)))
    prompts = prompts_on((100, 80)).values()
    found = [segmenter.decode(embedding, each, multimask=True).low_res[0] for each in prompts]
    for one, other in combinations(found, 2):
        assert (one - other).abs().max() > 0.1


@pytest.mark.usefixtures("small")
def test_a_batch_is_its_rows(tmp_path: Path) -> None:
    segmenter = loaded(saved(tmp_path, 1))
    embedding = segmenter.encode(picture((100, 80)))
    batch = prompts_on((100, 80))["boxes"]
    together = answer_of(segmenter, embedding, batch, multimask=True)
    assert batch.boxes is not None
    for index in range(len(batch)):
        alone = answer_of(segmenter, embedding, Prompts(boxes=batch.boxes[index : index + 1]), multimask=True)
        assert_same(alone, type(together)(*(value[index : index + 1] for value in together)))


@pytest.mark.usefixtures("small")
def test_half_precision_on_disk_gives_the_same_masks(tmp_path: Path) -> None:
    assert_same_from_disk(loaded(saved(tmp_path, 0)), tmp_path)


@pytest.mark.usefixtures("small")
def test_threads_do_not_meet(tmp_path: Path) -> None:
    assert_threads_do_not_meet(loaded(saved(tmp_path, 0)))


@pytest.mark.usefixtures("small")
def test_safetensors_and_half_precision_files(tmp_path: Path) -> None:
    state = {key: value.half() for key, value in random_state(small_sam(), 3).items()}
    save_file(state, tmp_path / "sam.safetensors")
    torch.save(state, tmp_path / "sam.pth")
    image, prompts = picture((50, 70)), prompts_on((50, 70))["box"]
    answers = []
    for name in ("sam.safetensors", "sam.pth"):
        segmenter = loaded(tmp_path / name)
        embedding = segmenter.encode(image)
        assert_storable(embedding, (50, 70))
        answers.append(answer_of(segmenter, embedding, prompts, multimask=True))
    assert_same(*answers)


@pytest.mark.usefixtures("small")
def test_a_strip_that_upstream_cannot_scale(tmp_path: Path) -> None:
    segmenter = loaded(saved(tmp_path, 0))
    embedding = segmenter.encode(picture((2000, 2)))
    assert answer_of(segmenter, embedding, prompts_on((2000, 2))["point"], True).full.shape == (1, 3, 2, 2000)


@pytest.mark.usefixtures("small")
def test_flipped_and_read_only_arrays(tmp_path: Path) -> None:
    segmenter = loaded(saved(tmp_path, 0))
    image = picture((50, 70))
    flipped = image[:, ::-1]
    frozen = flipped.copy()
    frozen.flags.writeable = False
    embeddings = [segmenter.encode(value).tensors["image_embed"] for value in (flipped, frozen)]
    assert torch.equal(*embeddings)
    assert not torch.allclose(embeddings[0], segmenter.encode(image).tensors["image_embed"], atol=1e-2)


@pytest.mark.usefixtures("small")
def test_points_without_labels_are_refused(tmp_path: Path) -> None:
    segmenter = loaded(saved(tmp_path, 0))
    with pytest.raises(ValueError, match="labels"):
        segmenter.decode(segmenter.encode(picture((9, 9))), Prompts(np.ones((1, 1, 2), np.float32)), True)


def test_the_real_vit_b(tmp_path: Path) -> None:
    """The published architecture end to end, but for eleven of its twelve alike blocks."""
    path = tmp_path / "sam_vit_b_01ec64.pth"
    with without_first_weights():
        reference = sam_model_registry["vit_b"]()
        state = random_state(reference, 5)
        torch.save(state, path)
        segmenter = load("sam1-vit_b", None, tmp_path, "cpu", offline=True)
    assert isinstance(segmenter, Sam1Segmenter)
    reference.load_state_dict(state)
    ours, theirs = segmenter.sam.state_dict(), reference.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    for sam in (segmenter.sam, reference):
        sam.image_encoder.blocks = sam.image_encoder.blocks[:1]

    size_wh = (333, 517)
    image, prompts = picture(size_wh), prompts_on(size_wh)["box and point"]
    embedding = segmenter.encode(image)
    assert embedding.tensors["image_embed"].shape == (1, 256, 64, 64)
    assert embedding.model == segmenter.version
    assert segmenter.version.startswith("sam1-vit_b-")
    answer = answer_of(segmenter, embedding, prompts, multimask=True)
    assert answer.low_res.shape == (1, 3, 256, 256)
    assert_same(answer, upstream_answer(SamPredictor(reference), image, prompts, multimask=True))
