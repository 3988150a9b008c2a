"""Small pictures of objects, cut from what is in the picture store: suggested, submitted, or doubtful."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from flask import Blueprint, Response
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from werkzeug.exceptions import NotFound

from tator_ml.images.decode import decode_image
from tator_ml.images.store import ImageStore
from tator_ml.learning.stores import image_store
from tator_ml.quality.overlap import rings_of
from tator_ml.quality.store import QualityStore, unpacked
from tator_ml.services import Fetches
from tator_ml.web.access import visitor
from tator_ml.web.dashboard.page import Dashboard
from tator_sdk.errors import TatorError
from tator_sdk.geometry import Xyxy
from tator_sdk.regions import RegionError

SUGGESTED, FINAL = "#2f7fd1", "#e0731d"
SIZE_WH = (320, 240)
MARGIN = 0.35
"""Of the object's longer side, around it."""
KEPT_CROPS = 512
DASH = 7.0
_MISSING = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 320 240"><rect width="320" height="240" fill="#8886"/>'
    '<text x="160" y="125" font-family="sans-serif" font-size="15" text-anchor="middle" fill="#777">'
    "the picture is not at hand</text></svg>"
)

Ring = NDArray[np.float64]


@dataclass(frozen=True)
class Marked:
    """Rings in one colour, in pixels of the picture; dashed where both of two should be seen."""

    rings: list[Ring]
    colour: str
    dashed: bool = False


class Crops:
    """Cut pictures, the latest ones kept: a page asks for the same ones again."""

    def __init__(self, store: ImageStore, max_pixels: int) -> None:
        self._store = store
        self._max_pixels = max_pixels
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[Any, ...], bytes] = OrderedDict()

    def cut(self, key: tuple[Any, ...], image: str, marks: Callable[[tuple[int, int]], list[Marked]]) -> bytes | None:
        """A JPEG of what is marked and what lies around it; None without the picture, or where nothing is marked.

        Args:
            key: that names it.
            image: content hash of the picture.
            marks: what is drawn, given the picture's width and height.

        Raises:
            ImageError, RegionError: the picture or the marks cannot be read.
        """
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        data = self._store.get(image)
        if data is None:
            return None
        pixels = decode_image(data, self._max_pixels)
        height, width = pixels.shape[:2]
        made = _jpeg(pixels, marks((width, height)))
        if made is None:
            return None
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > KEPT_CROPS:
                self._kept.popitem(last=False)
        return made


def add(routes: Blueprint, dashboard: Dashboard) -> None:
    """Routes of the pictures."""
    quality = dashboard.services.quality
    crops = Crops(image_store(dashboard.settings), dashboard.settings.image_max_pixels)
    images = dashboard.services.images

    @routes.get("/quality/crops/outcome/<int:number>.jpg")
    def quality_crop_outcome(number: int) -> Response:
        rows = quality.store.rows("SELECT project, task, image, suggested, final FROM outcomes WHERE id = ?", (number,))
        if not rows:
            raise NotFound("This suggestion is not on record any more.")
        project, task, image, suggested, final = rows[0]
        visitor().require(int(project))
        items = [unpacked(one) if one else None for one in (suggested, final)]

        def marks(size_wh: tuple[int, int]) -> list[Marked]:
            found = []
            for item, colour in zip(items, (SUGGESTED, FINAL), strict=True):
                if item is not None:
                    found.append(Marked(rings_of(item, size_wh), colour, colour == SUGGESTED and items[1] is not None))
            return found[::-1]  # the suggested line, which is dashed, above the other

        return _answer(crops, ("outcome", image, suggested, final), marks, quality.store, images, int(project), task,
                       image, items[0] or {})  # fmt: skip

    @routes.get("/quality/crops/doubt/<int:number>.jpg")
    def quality_crop_doubt(number: int) -> Response:
        doubt = quality.doubts.get(number)
        if doubt is None:
            raise NotFound("This doubt is gone: the label was changed, or checked again.")
        visitor().require(doubt.project)

        def marks(size_wh: tuple[int, int]) -> list[Marked]:
            scale = np.array(size_wh) / np.array(doubt.size_wh)
            return [Marked([_corners(doubt.xyxy) * scale], FINAL)]

        key = ("doubt", doubt.image, doubt.xyxy, doubt.size_wh)
        return _answer(crops, key, marks, quality.store, images, doubt.project, doubt.task, doubt.image, {})


def _answer(
    crops: Crops,
    key: tuple[Any, ...],
    marks: Callable[[tuple[int, int]], list[Marked]],
    store: QualityStore,
    images: Fetches,
    project: int,
    task: int,
    image: str | None,
    item: Mapping[str, Any],
) -> Response:
    made = None
    try:
        made = crops.cut(key, image, marks) if image else None
        if made is None and (address := _address(store, project, task, item)):
            made = crops.cut((*key, project, task), images.fetch(address, task).image, marks)
    except (TatorError, RegionError):
        pass
    answer = Response(made, mimetype="image/jpeg") if made else Response(_MISSING, mimetype="image/svg+xml")
    answer.headers["Cache-Control"] = "private, max-age=600" if made else "no-store"
    return answer


def _address(store: QualityStore, project: int, task: int, item: Mapping[str, Any]) -> str | None:
    """Where the picture of a task's region is."""
    rows = store.rows(
        "SELECT image_name, item_index, address FROM pictures WHERE project = ? AND task = ?", (project, task)
    )
    known = {(str(name), int(page)): str(address) for name, page, address in rows}
    place = (str(item.get("to_name")), int(item.get("item_index") or 0))
    return known.get(place) or next(iter(known.values()), None)


def _corners(xyxy: Xyxy) -> Ring:
    x0, y0, x1, y1 = xyxy
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.float64)


def _jpeg(pixels: NDArray[np.uint8], marks: list[Marked]) -> bytes | None:
    """What the marks are around; None where they mark nothing, as a brush does that was rubbed out."""
    height, width = pixels.shape[:2]
    rings = [ring for mark in marks for ring in mark.rings]
    if not rings:
        return None
    points = np.concatenate(rings).clip(0, (width, height))
    low, high = points.min(0), points.max(0)
    middle, side = (low + high) / 2, max(float(max(high - low)), 8.0) * (1 + 2 * MARGIN)
    scale = min(SIZE_WH) / side  # the object fits, whichever way it lies
    wide, tall = (length / scale for length in SIZE_WH)
    x, y = middle[0] - wide / 2, middle[1] - tall / 2
    view = Image.fromarray(pixels).transform(
        SIZE_WH, Image.Transform.EXTENT, (x, y, x + wide, y + tall), Image.Resampling.BILINEAR, fillcolor="#888"
    )
    draw = ImageDraw.Draw(view)
    for mark in marks:
        for ring in mark.rings:
            _line(draw, (ring - (x, y)) * scale, mark)
    stream = io.BytesIO()
    view.save(stream, "JPEG", quality=85)
    return stream.getvalue()


def _line(draw: ImageDraw.ImageDraw, ring: Ring, mark: Marked) -> None:
    """A closed line with a white rim, which is seen on every ground."""
    closed = [(float(x), float(y)) for x, y in np.concatenate([ring, ring[:1]])]
    if not mark.dashed:
        draw.line(closed, fill="white", width=5, joint="curve")
        draw.line(closed, fill=mark.colour, width=3, joint="curve")
        return
    for (x0, y0), (x1, y1) in pairwise(closed):
        length = float(np.hypot(x1 - x0, y1 - y0))
        for begin in np.arange(0, length, 2 * DASH):
            ends = [begin / length, min(begin + DASH, length) / length]
            dash = [(float(x0 + at * (x1 - x0)), float(y0 + at * (y1 - y0))) for at in ends]
            draw.line(dash, fill="white", width=5)
            draw.line(dash, fill=mark.colour, width=3)
