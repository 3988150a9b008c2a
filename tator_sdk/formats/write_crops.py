"""Each object as a picture of its own: ``{stem}-{class}-{i}.jpg``."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from PIL import Image

from tator_sdk.formats.dataset import LabelledPicture, enclosing_xyxy
from tator_sdk.formats.write_yolo import EMPTY, UNKNOWN, write_labelmap
from tator_sdk.formats.writing import DatasetWriter, safe_name
from tator_sdk.geometry import clip_xyxy
from tator_sdk.images import decode_image

JPEG_QUALITY = 95
MOST_PIXELS = 400_000_000


def _new_file(folder: Path, stem: str) -> IO[bytes]:
    """A file that was not there: ``a-b`` with a ``c`` on it and ``a`` with a ``b-c`` would have one name."""
    tried, number = stem, 1
    while True:
        try:
            return (folder / f"{tried}.jpg").open("xb")
        except FileExistsError:
            number += 1
            tried = f"{stem}-{number}"


class CropsWriter(DatasetWriter):
    """Writes what lies in the upright box around each shape, as seen with EXIF rotation; see `DatasetWriter`.

    ``i`` counts the objects of a picture from 0. Pixels count that the box touches: a box from 10.2 to 19.7 gives
    columns 10 to 19.
    """

    dataset_type = "crops"

    def add(self, picture: LabelledPicture, data: bytes | None = None) -> None:
        """Write the objects of a picture. See `DatasetWriter`.

        Raises:
            ImageError: the picture is damaged.
        """
        pixels = None
        stem = self.unique_name(picture).rpartition(".")[0]
        folder = self.folder / picture.split if picture.split else self.folder
        for index, one in enumerate(picture.shapes):
            if one.label not in self._indices:
                self.note(UNKNOWN)
                continue
            x0, y0, x1, y1 = clip_xyxy(enclosing_xyxy(one.shape), picture.size_wh)
            left, top, right, bottom = int(x0), int(y0), int(-(-x1 // 1)), int(-(-y1 // 1))
            if right <= left or bottom <= top:
                self.note(EMPTY)
                continue
            if pixels is None:
                pixels = decode_image(picture.path.read_bytes() if data is None else data, MOST_PIXELS)
            folder.mkdir(exist_ok=True)
            crop = Image.fromarray(pixels[top:bottom, left:right])
            with _new_file(folder, f"{stem}-{safe_name(one.label)}-{index}") as file:
                crop.save(file, "JPEG", quality=JPEG_QUALITY)
            self._counts[one.label] += 1
        self._pictures[picture.split or "train"] += 1

    def finish(self) -> None:
        """Write the names. See `DatasetWriter`."""
        write_labelmap(self.folder, self.classes)
