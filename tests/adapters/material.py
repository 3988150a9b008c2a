"""Pictures, prompts and random weights for the adapters' tests, and how answers are compared."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tator_ml.engine.segmenters.base import Embedding, Prompts, Segmenter
from tator_ml.engine.store import EmbeddingStore

TOLERANCE = 1e-4
_EMBEDDING = re.compile(
    r"pos_embed|rel_pos|gaussian|attention_biases|point_embeddings|tokens?\.weight|(no|not)_.*(embed|ptr|enc)|tpos"
)


class Answer(NamedTuple):
    """What a segmenter says to B prompts: logits of the picture's size, IoU, logits as decoded."""

    full: Tensor  # (B, K, H, W)
    iou: Tensor  # (B, K)
    low_res: Tensor  # (B, K, h, w)


def picture(size_wh: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    """Smooth colours with a little noise, (H, W, 3) uint8."""
    width, height = size_wh
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 7, 3)).astype(np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return (smooth + rng.normal(0, 8, smooth.shape)).clip(0, 255).astype(np.uint8)


def random_state(model: nn.Module, seed: int, sharpness: float = 1.0) -> dict[str, Tensor]:
    """Weights for every key, none at the zero or one it is initialised with, in sane sizes.

    Args:
        model: gives the keys and shapes.
        seed: of the numbers.
        sharpness: factor on the last layer before the mask logits.
    """
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, value in model.state_dict().items():
        if not value.is_floating_point():
            state[key] = value.clone()
            continue
        noise = torch.randn(value.shape, generator=generator)
        if key.endswith("running_var") or (value.ndim == 1 and key.endswith("weight")):
            state[key] = 1 + 0.5 * noise.tanh()
        elif _EMBEDDING.search(key):
            state[key] = 0.7 * noise
        elif value.ndim == 1:
            state[key] = 0.3 * noise
        else:
            state[key] = 1.4 * noise / value[0].numel() ** 0.5
        if re.search(r"output_hypernetworks_mlps\.\d\.layers\.2", key):
            state[key] *= sharpness
    return state


@contextmanager
def without_first_weights() -> Iterator[None]:
    """Models that are built meanwhile hold anything: every weight is replaced, and drawing the first takes seconds."""

    def left(weight: Tensor, *_: object, **__: object) -> Tensor:
        return weight

    with pytest.MonkeyPatch.context() as patch:
        for name in ("kaiming_uniform_", "normal_", "trunc_normal_", "uniform_"):
            patch.setattr(torch.nn.init, name, left)
        yield


def prompts_on(size_wh: tuple[int, int]) -> dict[str, Prompts]:
    """One of each kind of prompt, in pixels of a picture."""
    size = np.array(size_wh, np.float32)

    def points(*shares: list[tuple[float, float]]) -> NDArray[np.float32]:
        return np.array(shares, np.float32) * size

    def boxes(*shares: tuple[float, float, float, float]) -> NDArray[np.float32]:
        return np.array(shares, np.float32) * np.tile(size, 2)

    def labels(*rows: list[int]) -> NDArray[np.int64]:
        return np.array(rows, np.int64)

    box = (0.21, 0.15, 0.83, 0.72)
    return {
        "point": Prompts(points([(0.3, 0.6)]), labels([1])),
        "point and negative": Prompts(points([(0.3, 0.6), (0.71, 0.22)]), labels([1, 0])),
        "box": Prompts(boxes=boxes(box)),
        "box and point": Prompts(points([(0.4, 0.4)]), labels([1]), boxes(box)),
        "boxes": Prompts(boxes=boxes((0.5, 0.1, 0.9, 0.95), box, (0.0, 0.0, 0.3, 0.4))),
        "padded points": Prompts(points([(0.3, 0.6), (0, 0)], [(0.2, 0.9), (0.8, 0.1)]), labels([1, -1], [0, 1])),
        "boxes and points": Prompts(
            points([(0.6, 0.5)], [(0.4, 0.4)]), labels([0], [1]), boxes((0.5, 0.1, 0.9, 0.95), box)
        ),
    }


def show(predictor: Any, image: NDArray[np.uint8]) -> None:
    """Have upstream's predictor encode a picture, but for the one that it was shown last and still holds."""
    if getattr(predictor, "shown", None) is not image:
        predictor.set_image(image)
        predictor.shown = image


def answer_of(segmenter: Segmenter, embedding: Embedding, prompts: Prompts, multimask: bool) -> Answer:
    """The adapter's answer, every mask brought to the picture's size."""
    decoded = segmenter.decode(embedding, prompts, multimask)
    full = torch.stack([segmenter.full_size(embedding, masks) for masks in decoded.low_res])
    return Answer(full, decoded.iou, decoded.low_res)


def assert_same(ours: Answer, theirs: Answer) -> None:
    """Equal to 1e-4, and about something: the masks have both sides and differ from each other."""
    for name, one, other in zip(Answer._fields, ours, theirs, strict=True):
        assert one.dtype == torch.float32
        assert one.shape == other.shape, name
        difference = (one - other).abs().max()
        assert difference <= TOLERANCE, f"{name} is off by {difference}"
    assert theirs.low_res.flatten(2).std(-1).min() > 0.1, "flat masks would hide a difference"


def assert_storable(embedding: Embedding, size_wh: tuple[int, int]) -> None:
    """Float32 on the CPU, batch of one, contiguous and free of gradients: fit for safetensors."""
    assert embedding.size_wh == size_wh
    assert embedding.nbytes == sum(4 * tensor.numel() for tensor in embedding.tensors.values()) > 0
    for tensor in embedding.tensors.values():
        assert tensor.dtype == torch.float32
        assert tensor.device.type == "cpu"
        assert tensor.shape[0] == 1
        assert tensor.is_contiguous()
        assert not tensor.requires_grad


def assert_threads_do_not_meet(segmenter: Segmenter) -> None:
    """Two pictures encoded and decoded over and over at the same time, each as if alone."""
    sizes = [(90, 61), (50, 120)]
    pictures = [picture(size_wh, seed) for seed, size_wh in enumerate(sizes)]
    prompts = [prompts_on(size_wh)["point and negative"] for size_wh in sizes]

    def answer(index: int) -> Answer:
        return answer_of(segmenter, segmenter.encode(pictures[index]), prompts[index], multimask=True)

    alone = [answer(0), answer(1)]
    assert not torch.allclose(alone[0].low_res, alone[1].low_res, atol=1e-2)
    kept = [segmenter.encode(image) for image in pictures]
    failures: list[BaseException] = []
    start = threading.Barrier(2)

    def work(index: int) -> None:
        try:
            start.wait(30)
            for _ in range(4):
                assert_same(answer_of(segmenter, kept[index], prompts[index], multimask=True), alone[index])
                assert_same(answer(index), alone[index])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures, failures[0]


def assert_same_from_disk(segmenter: Segmenter, folder: Path, size_wh: tuple[int, int] = (517, 333)) -> None:
    """An embedding that was on disk in half precision gives the same masks but for pixels at their edges.

    Only pixels whose logit is within a twentieth of a standard deviation of zero may differ, and few of them do.
    """
    store = EmbeddingStore(folder / "warm", 10**9)
    fresh = segmenter.encode(picture(size_wh))
    name = "0" * 64
    assert store.put(name, fresh)
    kept = store.get(segmenter.version, name)
    assert kept is not None and kept.tensors.keys() == fresh.tensors.keys() and kept.size_wh == size_wh
    assert all(tensor.dtype == torch.float32 for tensor in kept.tensors.values())
    for prompts in prompts_on(size_wh).values():
        ours, theirs = (answer_of(segmenter, each, prompts, multimask=True) for each in (kept, fresh))
        scale = theirs.full.flatten(2).std(-1)[..., None, None]
        assert ((ours.full - theirs.full).abs() / scale).max() < 0.05
        assert (ours.iou - theirs.iou).abs().max() < 0.01 * max(1.0, float(theirs.iou.abs().max()))
        mine, yours = ours.full > 0, theirs.full > 0
        differing = (mine ^ yours).flatten(2).sum(-1)
        assert (differing <= 0.02 * mine[0, 0].numel()).all()
        assert ((mine ^ yours) <= ((theirs.full / scale).abs() < 0.05)).all()
