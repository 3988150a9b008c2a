"""Places go to the model's coordinates and back as the real processors scale pictures: to one pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

from tator_ml.vlm.coordinates import FAMILIES, UnknownFamily, coordinates_of, input_wh

SIZES = [(640, 480), (641, 479), (97, 1013), (1999, 31), (53, 51), (3000, 2003), (28, 28), (2400, 13), (15, 2000)]
"""Width and height: odd ones, wide and tall ones up to 1:185, smaller and larger than the processors' limits."""
PATCHES = {"qwen2_5_vl": 14, "qwen3_vl": 16, "qwen3_vl_moe": 16}
MEAN, STD = 0.5, 0.5


def seen(processor: object, picture: Image.Image) -> tuple[NDArray[np.float32], tuple[int, int]]:
    """The picture as the model sees it (H, W), put together again from the processor's patches; and its input_wh."""
    given = processor(picture, return_tensors="pt")  # type: ignore[operator]
    (grid,) = given["image_grid_thw"].tolist()
    patch, merge = processor.patch_size, processor.merge_size  # type: ignore[attr-defined]
    _, rows, columns = grid
    patches = torch.as_tensor(given["pixel_values"]).reshape(
        rows // merge,
        columns // merge,
        merge,
        merge,
        3,
        processor.temporal_patch_size,
        patch,
        patch,  # type: ignore[attr-defined]
    )[..., 0, 0, :, :]
    pixels = patches.permute(0, 2, 4, 1, 3, 5).reshape(rows * patch, columns * patch)
    return np.asarray(pixels * STD + MEAN), input_wh(grid, patch)


def edges(pixels: NDArray[np.float32]) -> tuple[float, float, float, float]:
    """The box of a white rectangle on black, its edges where brightness crosses one half, between pixels if need be."""
    across, down = pixels.max(0), pixels.max(1)

    def span(line: NDArray[np.float32]) -> tuple[float, float]:
        bright = np.flatnonzero(line > 0.5)
        return float(bright[0]), float(bright[-1] + 1)

    (x1, x2), (y1, y2) = span(across), span(down)
    return x1, y1, x2, y2


@pytest.mark.parametrize("backend", [Qwen2VLImageProcessor, Qwen2VLImageProcessorPil])
@pytest.mark.parametrize("size_wh", SIZES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_box_is_where_the_model_sees_it(family: str, size_wh: tuple[int, int], backend: type) -> None:
    patch = PATCHES[family]
    limits = {"shortest_edge": 256 * (2 * patch) ** 2, "longest_edge": 1280 * (2 * patch) ** 2}
    processor = backend(size=limits, patch_size=patch, image_mean=[MEAN] * 3, image_std=[STD] * 3)
    width, height = size_wh
    box = (width // 5, height // 4, width - width // 3, height - height // 7)
    picture = np.zeros((height, width, 3), np.uint8)
    picture[box[1] : box[3], box[0] : box[2]] = 255
    pixels, seen_wh = seen(processor, Image.fromarray(picture))
    assert pixels.shape == (seen_wh[1], seen_wh[0])

    coordinates = coordinates_of(family)
    written = coordinates.from_picture(box, size_wh, seen_wh)
    where = edges(pixels)  # what a perfect model would point at
    on_input = (
        written
        if coordinates.full_scale is None
        else tuple(value * seen_wh[at % 2] / 1000 for at, value in enumerate(written))
    )
    assert np.abs(np.subtract(on_input, where)).max() <= 1
    # and back: from what is seen, in whole numbers as the model writes them, to the picture
    if coordinates.full_scale is None:
        answered = where
    else:
        answered = tuple(round(value * 1000 / seen_wh[at % 2]) for at, value in enumerate(where))  # type: ignore[assignment]
    back = coordinates.to_picture(answered, size_wh, seen_wh)
    step = [max(1, size / (coordinates.full_scale or seen)) for size, seen in zip(size_wh, seen_wh, strict=True)]
    assert np.all(np.abs(np.subtract(back, box)) <= np.array(step * 2))  # one pixel of the coarser of the two
    assert np.allclose(coordinates.to_picture(written, size_wh, seen_wh), box)

    if family == "qwen2_5_vl" and max(np.abs(np.subtract(seen_wh, size_wh))) > 5:
        # unscaled places, as one forgets so easily, would not pass
        assert np.abs(np.subtract(box, where)).max() > 1


def test_points_and_axes() -> None:
    assert coordinates_of("qwen2_5_vl").from_picture((50.0, 20.0), (100, 40), (280, 56)) == (140, 28)
    assert coordinates_of("qwen3_vl").from_picture((50.0, 10.0), (100, 40), (280, 56)) == (500, 250)
    assert coordinates_of("qwen2_5_vl").to_picture((280, 56, 0, 28), (100, 40), (280, 56)) == (100, 40, 0, 20)
    assert coordinates_of("qwen3_vl").to_picture((1000.0, 1000.0), (99, 41), (280, 56)) == (99, 41)


def test_an_unknown_family_is_named() -> None:
    with pytest.raises(UnknownFamily, match=r'"llava".*qwen2_5_vl'):
        coordinates_of("llava")
