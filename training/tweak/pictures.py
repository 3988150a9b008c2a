"""A sheet of the boxes that moved most, before and after: people would rather look than read."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from tator_ml.images.decode import ImageError, decode_image
from tator_ml.images.store import ImageStore
from tator_sdk.files import write_durably
from tator_sdk.geometry import Xyxy

SHEET_FILE = "moved.png"
TILE, CAPTION, GAP, COLUMNS = 240, 18, 6, 5  # pixels, but the last
MARGIN = 0.25  # of the longer side, around both boxes
BEFORE, AFTER, GROUND, INK = "#ff8c1a", "#27d07a", "#202020", "#f0f0f0"


def draw_sheet(boxes: Sequence[dict[str, Any]], store: ImageStore, max_pixels: int, folder: Path) -> Path | None:
    """Draw boxes on cuttings of their pictures: orange before, green after.

    Args:
        boxes: of the journal, each with its task.
        store: of the pictures.
        max_pixels: larger pictures are not opened.
        folder: where the sheet goes.

    Returns:
        Its file; None where no picture could be had.
    """
    by_picture: dict[str, list[int]] = {}
    for index, box in enumerate(boxes):
        by_picture.setdefault(box["image"], []).append(index)
    drawn: dict[int, Image.Image] = {}
    for image, indices in by_picture.items():  # each picture is decoded once, and forgotten
        data = store.get(image)
        if data is None:
            continue
        try:
            picture = Image.fromarray(decode_image(data, max_pixels))
        except ImageError:
            continue
        drawn |= {index: _tile(picture, boxes[index]) for index in indices}
    tiles = [drawn[index] for index in sorted(drawn)]
    if not tiles:
        return None
    columns = min(COLUMNS, len(tiles))
    rows = math.ceil(len(tiles) / columns)
    wide, high = TILE + GAP, TILE + CAPTION + GAP
    sheet = Image.new("RGB", (columns * wide + GAP, rows * high + GAP), "black")
    for index, tile in enumerate(tiles):
        sheet.paste(tile, (GAP + index % columns * wide, GAP + index // columns * high))
    stream = io.BytesIO()
    sheet.save(stream, "PNG")
    write_durably(folder / SHEET_FILE, stream.getvalue())
    return folder / SHEET_FILE


def _tile(picture: Image.Image, box: dict[str, Any]) -> Image.Image:
    before, after = _corners(box["before"]), _corners(box["after"])
    x0, y0 = (min(before[at], after[at]) for at in (0, 1))
    x1, y1 = (max(before[at], after[at]) for at in (2, 3))
    side = max(x1 - x0, y1 - y0, 8.0) * (1 + 2 * MARGIN)
    left, top = (x0 + x1 - side) / 2, (y0 + y1 - side) / 2
    cut = picture.transform(
        (TILE, TILE), Image.Transform.EXTENT, (left, top, left + side, top + side), Image.Resampling.BILINEAR
    )
    tile = Image.new("RGB", (TILE, TILE + CAPTION), GROUND)
    tile.paste(cut, (0, 0))
    draw, scale = ImageDraw.Draw(tile), TILE / side
    for corners, colour in ((before, BEFORE), (after, AFTER)):
        draw.rectangle(
            [(edge - (left, top)[at % 2]) * scale for at, edge in enumerate(corners)], outline=colour, width=2
        )
    draw.text((4, TILE + 3), f"task {box['task']}  {box['label']}"[:28], fill=INK)
    draw.text((TILE - 56, TILE + 3), f"IoU {box['iou']:.2f}", fill=INK)
    return tile


def _corners(edges: Sequence[float]) -> Xyxy:
    x0, y0, x1, y1 = (float(edge) for edge in edges)
    return x0, y0, x1, y1
