"""The registry of data sets: what there is, where it lies, what it was made from, and whether it is still the same.

A JSON file for each under ``TATOR_HOME/datasets``; the data sets themselves stay where they are.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import re
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock

from tator_sdk.errors import TatorError
from tator_sdk.files import write_durably
from tator_sdk.formats import open_dataset
from tator_sdk.formats.archive import UNREADABLE
from tator_sdk.formats.dataset import DatasetError, LabelledPicture, LabelledShape, Outline
from tator_sdk.formats.writing import MARKER, safe_name, written_by_tator
from tator_sdk.geometry import RotatedBox

READABLE = frozenset({"yolo-auto", "yolo-detect", "yolo-segment", "yolo-obb", "coco"})
TYPES = (*sorted(READABLE), "crops", "qwen", "sam3")
State = Literal["unchanged", "changed", "gone"]
Progress = Callable[[int, int], None]


class RegistryError(TatorError):
    """A record that is not there, or a data set that may not be removed."""


@dataclass(frozen=True)
class DatasetRecord:
    """A data set as the registry knows it.

    Attributes:
        id: by which commands name it.
        type: one of `TYPES`.
        path: of its folder or file.
        classes: shapes of each class, in the order of the classes.
        pictures: how many there are; ``splits`` by split, ``""`` where it has none.
        signature: over the pictures' contents and their labels, whatever the order and the names of the files.
        fingerprint: over the files' names, sizes and dates: what is looked at first.
        source: what it was made from, such as ``{"project": 3}``.
        created_at: in ISO 8601, UTC.
    """

    id: str
    type: str
    path: str
    classes: dict[str, int]
    pictures: int
    splits: dict[str, int]
    signature: str
    fingerprint: str
    source: dict[str, Any]
    created_at: str


class DatasetRegistry:
    """The records of one installation; safe to use from several processes."""

    def __init__(self, home: Path) -> None:
        """``home`` is Tator's folder; nothing is made in it before something is registered."""
        self._folder = home / "datasets"

    def register(
        self,
        path: Path,
        *,
        type: str | None = None,
        classes: Mapping[str, int] | None = None,
        splits: Mapping[str, int] | None = None,
        source: Mapping[str, Any] | None = None,
        progress: Progress = lambda done, total: None,
    ) -> DatasetRecord:
        """Read a data set and keep its record; one of the same path is brought up to date and keeps its id.

        Args:
            path: of its folder, zip or file.
            type: one of `TYPES`. Default: what its marker says, else what is found there.
            classes: shapes of each class. Default: counted; types that Tator does not read need it.
            splits: pictures of each split, likewise.
            source: what it was made from. Default: what its marker says.
            progress: told the pictures read so far, and of how many.

        Raises:
            TatorError: there is no data set, or the type is unknown.
        """
        path = path.expanduser().resolve()
        marker = marker_of(path) or {}
        kind = type or marker.get("type") or None
        if kind is not None and kind not in TYPES:
            raise RegistryError(f"There is no type {kind!r} of data set; there are {', '.join(TYPES)}.")
        if not path.exists():
            raise RegistryError(f"There is nothing at {path}.")
        if not _is_read(kind, marker):
            signature = signature_of_files(path)
            classes, splits = classes or marker.get("classes") or {}, splits or marker.get("pictures") or {}
        else:
            kind, counted = _read(path, kind, progress)
            signature, classes, splits = counted.signature, counted.classes, counted.splits
        fingerprint = fingerprint_of(path)
        with self._alone():  # two that register at once would take the same id
            known = next((one for one in self.list() if one.path == str(path)), None)
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            record = DatasetRecord(
                known.id if known else self._free_id(path), str(kind), str(path), dict(classes), sum(splits.values()),
                dict(splits), signature, fingerprint, dict(source or marker.get("source") or {}),
                str(marker.get("created_at") or (known.created_at if known else now)),
            )  # fmt: skip
            self._write(record)
        return record

    def list(self) -> list[DatasetRecord]:
        """All records, the newest first; a file that is no record is passed over."""
        found = [one for path in sorted(self._folder.glob("*.json")) if (one := _read_record(path)) is not None]
        return sorted(found, key=lambda one: (one.created_at, one.id), reverse=True)

    def get(self, name: str) -> DatasetRecord:
        """The record of an id, or of a path.

        Raises:
            RegistryError: there is none.
        """
        records = self.list()
        try:
            path = str(Path(name).expanduser().resolve())
        except (OSError, ValueError, RuntimeError):  # nothing that could be a path
            path = ""
        for one in records:
            if name == one.id or path == one.path:
                return one
        raise RegistryError(f"There is no data set '{name}'; `tator datasets list` shows all.")

    def check(self, record: DatasetRecord, progress: Progress = lambda done, total: None) -> State:
        """Whether a data set is still what it was: by names, sizes and dates, and by content where these differ."""
        path = Path(record.path)
        if not path.exists():
            return "gone"
        fingerprint = fingerprint_of(path)
        if fingerprint == record.fingerprint:
            return "unchanged"
        try:
            if _is_read(record.type, marker_of(path) or {}):
                signature = _read(path, record.type, progress)[1].signature
            else:
                signature = signature_of_files(path)
        except DatasetError:
            return "changed"
        if signature != record.signature:
            return "changed"
        with self._alone():
            if self._path(record).exists():  # else somebody forgot it meanwhile
                self._write(replace(record, fingerprint=fingerprint))
        return "unchanged"

    def forget(self, record: DatasetRecord) -> None:
        """Remove the record; the data set stays."""
        self._path(record).unlink(missing_ok=True)

    def remove_files(self, record: DatasetRecord) -> None:
        """Remove a data set that Tator wrote and nobody touched since, and its record.

        Raises:
            RegistryError: it is not one of Tator's, or something was changed or added.
        """
        path = Path(record.path)
        if path.is_symlink() or marker_of(path) is None:
            raise RegistryError(f"{path} was not written by Tator; if you want it gone, remove it yourself.")
        if fingerprint_of(path) != record.fingerprint:
            raise RegistryError(f"Files in {path} were changed or added since; look at them, and remove it yourself.")
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        self.forget(record)

    def _free_id(self, path: Path) -> str:
        stem = re.sub(r"[^a-z0-9]+", "-", safe_name(path.stem).lower()).strip("-") or "set"
        tried, number = stem, 1
        while (self._folder / f"{tried}.json").exists():
            number += 1
            tried = f"{stem}-{number}"
        return tried

    def _path(self, record: DatasetRecord) -> Path:
        return self._folder / f"{record.id}.json"

    def _write(self, record: DatasetRecord) -> None:
        write_durably(self._path(record), json.dumps(asdict(record), indent=2, ensure_ascii=False).encode())

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process and thread at a time reads, changes and writes."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self._folder / ".lock"):
            yield


@dataclass(frozen=True)
class _Counted:
    signature: str
    classes: dict[str, int]
    splits: dict[str, int]


def _is_read(kind: str | None, marker: Mapping[str, Any]) -> bool:
    """Whether a reader goes through the data set; labels without their pictures are looked at as files."""
    return (kind is None or kind in READABLE) and marker.get("images", True) is not False


def _read(path: Path, kind: str | None, progress: Progress) -> tuple[str, _Counted]:
    """Read a whole data set; returns its type too."""
    with closing(open_dataset(path, kind.removeprefix("yolo-") if kind else None)) as reader:
        classes: Counter[str] = Counter(dict.fromkeys(reader.classes, 0))
        splits: Counter[str] = Counter()
        total = 0
        count = len(reader)
        for done, picture in enumerate(reader.pictures(), 1):
            classes.update(one.label for one in picture.shapes)
            splits[picture.split] += 1
            total += _number_of(picture)
            progress(done, count)
        found = kind or ("coco" if reader.kind == "coco" else f"yolo-{reader.kind}")
        digest = hashlib.sha256(f"{total % 2**256:064x}".encode()).hexdigest()
        return found, _Counted(digest, dict(classes), dict(sorted(splits.items())))


def _number_of(picture: LabelledPicture) -> int:
    """A picture with its labels as a number; their sum does not depend on an order."""
    content = _sha256(picture.path) if picture.path.is_file() else picture.name
    shapes = sorted(_text_of(one) for one in picture.shapes)
    return int(hashlib.sha256("\n".join([content, picture.split, *shapes]).encode()).hexdigest(), 16)


def _text_of(one: LabelledShape) -> str:
    shape = one.shape
    if isinstance(shape, RotatedBox):
        rings = [shape.corners()]
    else:
        rings = [*shape.parts, *shape.holes] if isinstance(shape, Outline) else [np.array(shape)]
    numbers = ";".join(" ".join(f"{value + 0:.2f}" for value in ring.ravel().tolist()) for ring in rings)
    return f"{one.label}\t{numbers}"


def signature_of_files(path: Path) -> str:
    """A hash over all files of a folder by their names in it and their contents, whatever the order."""
    total = 0
    for file, name in _files(path):
        total += int(hashlib.sha256(f"{name}\n{_sha256(file)}".encode()).hexdigest(), 16)
    return hashlib.sha256(f"{total % 2**256:064x}".encode()).hexdigest()


def fingerprint_of(path: Path) -> str:
    """A hash over names, sizes and dates of all files: as fast as listing them."""
    digest = hashlib.sha256()
    for file, name in _files(path):
        about = file.stat()
        digest.update(f"{name}\0{about.st_size}\0{about.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _files(path: Path) -> Iterator[tuple[Path, str]]:
    if path.is_file():
        yield path, path.name
        return
    for place, folders, files in os.walk(path):
        folders.sort()
        for name in sorted(files):
            file = Path(place) / name
            if file.is_file():
                yield file, file.relative_to(path).as_posix()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def marker_of(path: Path) -> dict[str, Any] | None:
    """What Tator wrote into a data set about it; None where it did not write it."""
    if path.is_dir():
        return written_by_tator(path)
    try:
        with zipfile.ZipFile(path) as archive:
            about = json.loads(archive.read(MARKER))
    except (*UNREADABLE, KeyError):
        return None
    return about if isinstance(about, dict) and "type" in about else None


def _read_record(path: Path) -> DatasetRecord | None:
    try:
        return DatasetRecord(**json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None
