"""SAM 2.1 against ``SAM2ImagePredictor`` on the same file."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose
from numpy.typing import NDArray
from safetensors.torch import save_file
from sam2.build_sam import build_sam2
from sam2.modeling.sam2_base import SAM2Base
from sam2.sam2_image_predictor import SAM2ImagePredictor
from torch import nn

from tator_ml.engine.segmenters import load, sam2
from tator_ml.engine.segmenters.base import Embedding, Prompts, Segmenter
from tests.adapters.material import (
    Answer,
    answer_of,
    assert_same,
    assert_same_from_disk,
    assert_storable,
    assert_threads_do_not_meet,
    picture,
    prompts_on,
    random_state,
    show,
    without_first_weights,
)

SIDE = 192
CONFIG = "configs/sam2.1/sam2.1_hiera_t.yaml"
SMALL = [
    f"++model.image_size={SIDE}",
    "++model.image_encoder.trunk.embed_dim=16",
    "++model.image_encoder.trunk.stages=[1,2,2,1]",
    "++model.image_encoder.trunk.global_att_blocks=[4]",
    "++model.image_encoder.neck.backbone_channel_list=[128,64,32,16]",
    "++model.memory_attention.num_layers=1",
]


@cache
def upstream_small() -> SAM2Base:
    """Upstream's model, built once: half a second of reading configurations. Each test gives it weights of its own."""
    return build_sam2(CONFIG, device="cpu", hydra_overrides_extra=SMALL)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published configuration with a small trunk and picture."""
    monkeypatch.setattr(sam2, "build_sam2", partial(build_sam2, hydra_overrides_extra=SMALL))


def saved(folder: Path, seed: int, sharpness: float = 1.0) -> Path:
    path = folder / "sam2.1_hiera_tiny.pt"
    torch.save({"model": random_state(upstream_small(), seed, sharpness)}, path)
    return path


def loaded(path: Path) -> Segmenter:
    return load("sam2-tiny", str(path), path.parent, "cpu", offline=True)


def small_predictor(path: Path) -> SAM2ImagePredictor:
    upstream_small().load_state_dict(torch.load(path, weights_only=True)["model"])
    predictor = SAM2ImagePredictor(upstream_small())
    predictor._bb_feat_sizes = [(SIDE // stride, SIDE // stride) for stride in (4, 8, 16)]  # fixed for 1024
    return predictor


def upstream_answer(
    predictor: SAM2ImagePredictor, image: NDArray[np.uint8], prompts: Prompts, multimask: bool
) -> Answer:
    show(predictor, image)
    answer = predictor.predict(
        prompts.points, prompts.labels, box=prompts.boxes, multimask_output=multimask, return_logits=True
    )
    batched = [torch.as_tensor(value) for value in answer]
    return Answer(*(value[None] for value in batched) if len(prompts) == 1 else batched)


def answer_for_show(segmenter: Segmenter, embedding: Embedding, prompts: Prompts, multimask: bool) -> Answer:
    """Ours with the limits the predictor puts on what it returns as ``low_res``."""
    answer = answer_of(segmenter, embedding, prompts, multimask)
    return answer._replace(low_res=answer.low_res.clamp(-32, 32))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("sharpness", [0.03, 1.0])
@pytest.mark.parametrize(("seed", "size_wh"), [(0, (517, 333)), (1, (41, 900)), (2, (64, 64)), (3, (30, 20))])
def test_answers_are_those_of_the_predictor(
    tmp_path: Path, seed: int, size_wh: tuple[int, int], sharpness: float
) -> None:
    path = saved(tmp_path, seed, sharpness)
    segmenter, predictor = loaded(path), small_predictor(path)
    image = picture(size_wh, seed)
    embedding = segmenter.encode(image)
    assert_storable(embedding, size_wh)
    assert embedding.tensors.keys() == {"image_embed", "high_res_0", "high_res_1"}
    for prompts in prompts_on(size_wh).values():
        for multimask in (True, False):
            ours = answer_for_show(segmenter, embedding, prompts, multimask)
            assert ours.iou.shape == (len(prompts), 3 if multimask else 1)
            assert_same(ours, upstream_answer(predictor, image, prompts, multimask))


@pytest.mark.usefixtures("small")
def test_the_comparison_meets_what_is_special_to_sam2(tmp_path: Path) -> None:
    """Sharp masks are stable and beyond the ±32 shown; soft ones give way to the best of three."""
    size_wh = (64, 64)
    prompts = prompts_on(size_wh)["point"]
    for sharpness, stable in ((0.03, False), (1.0, True)):
        segmenter = loaded(saved(tmp_path, 2, sharpness))
        embedding = segmenter.encode(picture(size_wh, 2))
        single = segmenter.decode(embedding, prompts, multimask=False)
        three = segmenter.decode(embedding, prompts, multimask=True)
        best = three.low_res[0, three.iou[0].argmax()]
        assert torch.equal(single.low_res[0, 0], best) is not stable
        assert bool(three.low_res.abs().max() > 32) is stable


@pytest.mark.usefixtures("small")
def test_half_precision_on_disk_gives_the_same_masks(tmp_path: Path) -> None:
    assert_same_from_disk(loaded(saved(tmp_path, 0)), tmp_path)


@pytest.mark.usefixtures("small")
def test_threads_do_not_meet(tmp_path: Path) -> None:
    assert_threads_do_not_meet(loaded(saved(tmp_path, 0)))


@pytest.mark.usefixtures("small")
def test_safetensors_and_read_only_arrays(tmp_path: Path) -> None:
    path = saved(tmp_path, 3)
    save_file(torch.load(path, weights_only=True)["model"], tmp_path / "sam2.safetensors")
    image, prompts = picture((50, 70)), prompts_on((50, 70))["box"]
    frozen = image[:, ::-1].copy()[:, ::-1]
    frozen.flags.writeable = False
    answers = []
    for file, pixels in ((path, image), (tmp_path / "sam2.safetensors", frozen)):
        segmenter = loaded(file)
        answers.append(answer_of(segmenter, segmenter.encode(pixels), prompts, multimask=True))
    assert_same(*answers)


@pytest.mark.usefixtures("small")
def test_points_without_labels_are_refused(tmp_path: Path) -> None:
    segmenter = loaded(saved(tmp_path, 0))
    with pytest.raises(ValueError, match="labels"):
        segmenter.decode(segmenter.encode(picture((9, 9))), Prompts(np.ones((1, 1, 2), np.float32)), True)


@pytest.mark.parametrize(
    ("name", "width", "blocks"),
    [("sam2-tiny", 96, 12), ("sam2-small", 96, 16), ("sam2-base_plus", 112, 24), ("sam2-large", 144, 48)],
)
def test_every_name_has_its_configuration_of_sam_2_1(name: str, width: int, blocks: int) -> None:
    """Width and depth of the trunk as in the Hiera paper (https://arxiv.org/abs/2306.00989)."""
    model = compose(config_name=sam2.CONFIGS[name]).model
    trunk = model.image_encoder.trunk
    assert trunk.embed_dim == width
    assert sum(trunk.get("stages", (2, 3, 16, 3))) == blocks  # the trunk's default
    assert model.no_obj_embed_spatial  # new in 2.1


def test_the_real_tiny(tmp_path: Path) -> None:
    """The published architecture end to end, but for seven of its twelve blocks: one of each kind stays."""
    path = tmp_path / "sam2.1_hiera_tiny.pt"
    with without_first_weights():
        upstream = build_sam2(CONFIG, device="cpu")
        state = random_state(upstream, 5)
        torch.save({"model": state}, path)
        segmenter = load("sam2-tiny", None, tmp_path, "cpu", offline=True)
    assert isinstance(segmenter, sam2.Sam2Segmenter)
    upstream.load_state_dict(state)
    ours, theirs = segmenter.sam.state_dict(), upstream.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    for sam in (segmenter.sam, upstream):
        for alike in (2, 4, 6, 7, 8, 9, 11):  # 0 to 9 with windows but 5, 7 and 9; 1, 3 and 10 make the grid coarser
            sam.image_encoder.trunk.blocks[alike] = nn.Identity()

    size_wh = (333, 517)
    image, prompts = picture(size_wh), prompts_on(size_wh)["box and point"]
    embedding = segmenter.encode(image)
    shapes = {key: tuple(value.shape) for key, value in embedding.tensors.items()}
    assert shapes == {
        "image_embed": (1, 256, 64, 64),
        "high_res_0": (1, 32, 256, 256),
        "high_res_1": (1, 64, 128, 128),
    }
    assert segmenter.version.startswith("sam2-tiny-")
    predictor = SAM2ImagePredictor(upstream)
    answer = answer_for_show(segmenter, embedding, prompts, multimask=True)
    assert_same(answer, upstream_answer(predictor, image, prompts, multimask=True))
