"""A COCO file as an index on disk: read once from end to end, then looked up by picture, in little memory."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ijson

from tator_sdk.formats.dataset import BadLine, DatasetError
from tator_sdk.formats.json_depth import ShallowJson

KEPT = ("id", "category_id", "bbox", "segmentation", "iscrowd", "rotation", "rings", "attributes")
LISTS = ("categories", "images", "annotations")
TOGETHER = 2000  # entries between two words about progress
CACHE_KIB = 16_384

SCHEMA = """
CREATE TABLE images (seq INTEGER PRIMARY KEY, name TEXT UNIQUE, width INTEGER, height INTEGER);
CREATE TABLE keys (key TEXT PRIMARY KEY, image INTEGER) WITHOUT ROWID;
CREATE TABLE annotations (seq INTEGER PRIMARY KEY, key TEXT, entry TEXT);
"""


@dataclass(frozen=True)
class CocoImage:
    """An entry of ``images``; sizes are 0 where the file does not say them."""

    seq: int
    name: str
    width: int
    height: int


class CocoIndex:
    """The entries of one COCO file, in a temporary SQLite file.

    Attributes:
        categories: names by id, in the order of the ids.
        bad: entries of ``images`` and ``categories`` that cannot be used.
    """

    def __init__(self, file: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Read the file, once for each of its three lists.

        Args:
            file: the JSON.
            progress: told the bytes read so far, and of how many.

        Raises:
            DatasetError: it is not JSON, or no COCO file.
        """
        self.file = file
        self._progress = progress
        self._bytes = file.stat().st_size
        self.bad: list[BadLine] = []
        self._folder = tempfile.TemporaryDirectory(prefix="tator-coco-", ignore_cleanup_errors=True)
        self._rows = sqlite3.connect(Path(self._folder.name) / "index.sqlite", check_same_thread=False)
        self._rows.executescript(
            f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-{CACHE_KIB};" + SCHEMA
        )
        try:
            self.categories = self._read_categories()
            self._read_images()
            self._rows.executemany("INSERT INTO annotations VALUES (?, ?, ?)", self._annotation_rows())
            self._rows.executescript("CREATE INDEX by_key ON annotations (key); CREATE INDEX by_image ON keys (image);")
            self._rows.commit()
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return int(self._rows.execute("SELECT count(*) FROM images").fetchone()[0])

    def images(self) -> Iterator[CocoImage]:
        """Entries of ``images`` in their order."""
        for row in self._rows.execute("SELECT seq, name, width, height FROM images ORDER BY seq"):
            yield CocoImage(*row)

    def annotations(self, image: CocoImage) -> Iterator[tuple[int, dict[str, Any]]]:
        """Annotations of an image, each with its place in the list, from 1."""
        query = "SELECT a.seq, a.entry FROM keys k JOIN annotations a ON a.key = k.key WHERE k.image = ? ORDER BY a.seq"
        for seq, entry in self._rows.execute(query, (image.seq,)):
            yield seq, json.loads(entry)

    def count(self, image: CocoImage) -> int:
        """How many annotations an image has."""
        return sum(1 for _ in self.annotations(image))

    def orphans(self) -> Iterator[BadLine]:
        """Annotations of images that are not in the list."""
        query = "SELECT seq, key FROM annotations WHERE key NOT IN (SELECT key FROM keys) ORDER BY seq"
        for seq, key in self._rows.execute(query):
            yield BadLine(self.file, seq, f"the annotation's image_id {key} is not in the list of images")

    def close(self) -> None:
        """Remove the index; the COCO file stays."""
        self._rows.close()
        self._folder.cleanup()

    def _items(self, name: str) -> Iterator[Any]:
        before = LISTS.index(name) * self._bytes
        try:
            with self.file.open("rb") as stream:
                shallow = ShallowJson(stream, str(self.file))
                for number, item in enumerate(ijson.items(shallow, f"{name}.item", use_float=True)):
                    if number % TOGETHER == 0:
                        self._progress(before + stream.tell(), len(LISTS) * self._bytes)
                    yield item
        except (ijson.JSONError, UnicodeDecodeError) as error:
            said = " ".join(str(error).split())[:120]
            raise DatasetError(f"{self.file} is not whole JSON ({said}); write it anew.") from error

    def _read_categories(self) -> dict[str, str]:
        found: dict[Any, str] = {}
        for number, entry in enumerate(self._items("categories"), 1):
            usable = isinstance(entry, dict) and isinstance(entry.get("id"), (int, float, str))
            if usable and isinstance(entry.get("name"), str):
                found[entry["id"]] = entry["name"]
            else:
                self.bad.append(BadLine(self.file, number, "the category has no id or no name"))
        if not found:
            raise DatasetError(f"{self.file} has no categories: it is no COCO file of objects.")
        ordered = sorted(found, key=lambda one: (not isinstance(one, int), one if isinstance(one, int) else str(one)))
        return {_key(one): found[one] for one in ordered}

    def _read_images(self) -> None:
        insert = "INSERT OR IGNORE INTO images VALUES (?, ?, ?, ?)"
        for number, entry in enumerate(self._items("images"), 1):
            name = entry.get("file_name") if isinstance(entry, dict) else None
            if not isinstance(name, str) or not name or "id" not in entry:
                self.bad.append(BadLine(self.file, number, "the image has no id or no file_name"))
                continue
            name = name.replace("\\", "/").removeprefix("./")
            sides = [side if isinstance(side := entry.get(key), int) and side > 0 else 0 for key in ("width", "height")]
            self._rows.execute(insert, (number, name, *sides))
            seq = self._rows.execute("SELECT seq FROM images WHERE name = ?", (name,)).fetchone()[0]
            if seq != number:
                self.bad.append(
                    BadLine(self.file, number, f"{name} stands in the list twice; its annotations are put together")
                )
            if not self._rows.execute("INSERT OR IGNORE INTO keys VALUES (?, ?)", (_key(entry["id"]), seq)).rowcount:
                reason = f"image id {_key(entry['id'])} is that of two images; the first one has its annotations"
                self.bad.append(BadLine(self.file, number, reason))

    def _annotation_rows(self) -> Iterator[tuple[int, str, str]]:
        for number, entry in enumerate(self._items("annotations"), 1):
            if isinstance(entry, dict):
                kept = {key: entry[key] for key in KEPT if key in entry}
                yield number, _key(entry.get("image_id")), json.dumps(kept, separators=(",", ":"))
            else:
                self.bad.append(BadLine(self.file, number, "the annotation is no object"))


def looks_like_coco(file: Path) -> bool:
    """Whether a JSON file has the lists of COCO's object annotations; reads up to the first of them."""
    wanted = {"images", "annotations", "categories"}
    try:
        with file.open("rb") as stream:
            for prefix, event, _ in ijson.parse(ShallowJson(stream, str(file))):
                if event == "start_array" and prefix in wanted:
                    return True
                if prefix == "" and event in {"start_array", "end_map"}:
                    return False
    except (ijson.JSONError, UnicodeDecodeError, OSError, DatasetError):
        return False
    return False


def _key(value: Any) -> str:
    """An id as text: 7, 7.0 and "7" are one, as tools write any of them."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
