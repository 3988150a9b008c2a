"""Pictures up to the limit that is set, whatever Pillow's own is, and none above it."""

from __future__ import annotations

import base64
import io
import struct

import numpy as np
import pytest
from PIL import Image

from tator_sdk.images import ImageError, decode_grey, decode_image
from tator_sdk.regions import RegionError, mask_data_url, read_stroke


def png(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), "grey").save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(autouse=True)
def low(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)


def test_our_limit_goes_before_pillows() -> None:
    assert decode_image(png(100, 50), 5000).shape == (50, 100, 3)
    assert decode_grey(png(100, 50), 5000).shape == (50, 100)
    for decode in (decode_image, decode_grey):
        with pytest.raises(ImageError, match="the 5000 allowed; raise TATOR_IMAGE_MAX_PIXELS"):
            decode(png(100, 51), 5000)
    with pytest.raises(ImageError):
        decode_image(png(200, 100), 5000)


def test_a_picture_within_an_icon_is_held_to_the_limit_too() -> None:
    """An icon's directory says at most 256 by 256, whatever lies within."""
    inside = png(300, 300)
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(inside), 22)
    with pytest.raises(ImageError):
        decode_image(struct.pack("<HHH", 0, 1, 1) + entry + inside, 20_000)


def test_a_painted_mask_is_held_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tator_sdk.regions.MOST_STROKE_PIXELS", 5000)
    mask = np.ones((50, 100), bool)
    assert read_stroke({"imageDataURL": mask_data_url(mask)}, (100, 50), (100, 50)).all()
    large = "data:image/png;base64," + base64.b64encode(png(300, 300)).decode()
    with pytest.raises(RegionError, match="could not be read"):
        read_stroke({"imageDataURL": large}, (100, 50), (100, 50))
