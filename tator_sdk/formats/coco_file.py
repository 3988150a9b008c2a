"""A COCO file while it grows: two lists on disk, so that memory does not grow with them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any


class CocoFile:
    """Images and annotations of one split; :meth:`finish` joins them into COCO's one JSON object."""

    def __init__(self, folder: Path, name: str) -> None:
        """Begin one.

        Args:
            folder: where the lists grow; it exists.
            name: of the split, for their names.
        """
        self._paths = [folder / f".{name}-{key}.jsonl" for key in ("images", "annotations")]
        self._images, self._annotations = (path.open("w+", encoding="utf-8") for path in self._paths)

    def add_image(self, number: int, file_name: str, size_wh: tuple[int, int]) -> None:
        """Enter a picture; ``file_name`` is relative to the file, the size in pixels."""
        width, height = size_wh
        _append(self._images, {"id": number, "file_name": file_name, "width": width, "height": height})

    def add_annotation(self, number: int, image: int, category: int, geometry: Mapping[str, Any]) -> None:
        """Enter an object with its ``bbox``, ``segmentation`` and ``area``."""
        head = {"id": number, "image_id": image, "category_id": category}
        _append(self._annotations, {**head, **geometry, "iscrowd": 0})

    def finish(self, path: Path, classes: Sequence[str]) -> None:
        """Write the file; categories are numbered from 1 in the order of the classes."""
        categories = [{"id": index + 1, "name": name} for index, name in enumerate(classes)]
        with path.open("w", encoding="utf-8") as file:
            file.write('{"info": {"description": "written by Tator"}, "licenses": [],\n"categories": ')
            json.dump(categories, file, ensure_ascii=False)
            for key, stream in (("images", self._images), ("annotations", self._annotations)):
                stream.seek(0)
                file.write(f',\n"{key}": [\n')
                for number, line in enumerate(stream):
                    file.write(("," if number else "") + line)
                file.write("]")
                stream.close()
            file.write("}\n")
        for part in self._paths:
            part.unlink()


def _append(stream: IO[str], entry: Mapping[str, Any]) -> None:
    stream.write(json.dumps(entry, ensure_ascii=False, separators=(",", ":")) + "\n")
