"""What all writers of data sets share: a folder that appears whole, pictures under names of their own, a marker.

Nothing that is there already is written over or removed: a data set goes into a new folder, and with ``force`` the
folder that had its name is moved aside first.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import shutil
import tempfile
import unicodedata
import zipfile
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from tator_sdk.formats.archive import RESERVED
from tator_sdk.formats.dataset import DatasetError, LabelledPicture
from tator_sdk.formats.pictures import PICTURES
from tator_sdk.unfinished import unfinished

MARKER = "tator-dataset.json"
"""File of a data set that Tator wrote itself: nothing else is ever removed with ``--files``."""

STORED = frozenset({".jpg", ".jpeg", ".png", ".webp"})  # compressed already
LONGEST_STEM = 120
Images = Literal["copy", "link", "none"]


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        path: of the folder, or of the zip.
        type: of the data set, as `tator datasets` lists it.
        pictures: how many, by split.
        classes: shapes of each class, in the order of the classes.
        notes: what was changed or left out, in sentences.
        moved: where the folder lies that had this name before; None where there was none.
    """

    path: Path
    type: str
    pictures: dict[str, int]
    classes: dict[str, int]
    notes: tuple[str, ...]
    moved: Path | None = None


class DatasetWriter(ABC):
    """A data set that is being written; a context that makes it appear when all of it is there.

    Example::

        with YoloWriter(Path("cars"), ["Car", "Van"], "segment") as writer:
            for picture in pictures:
                writer.add(picture)
        print(writer.written)

    Attributes:
        dataset_type: as `tator datasets` lists it.
        written: what was written, after the end of the context.
    """

    dataset_type: str
    written: Written

    def __init__(
        self,
        output: Path,
        classes: Sequence[str],
        *,
        images: Images = "copy",
        force: bool = False,
        zipped: bool = False,
        source: Mapping[str, Any] | None = None,
    ) -> None:
        """Take note of what is wanted; nothing is written before the context begins.

        Args:
            output: folder that is to be made, or that is empty; with ``zipped`` the name of the zip, with or
                without ``.zip``.
            classes: names, in the order of their indices.
            images: ``copy`` the pictures, ``link`` them (hard links, copies where the disk has none), or ``none``.
            force: where there is something of that name, move it aside.
            zipped: write one zip instead of a folder.
            source: what it was made from, kept in the marker.

        Raises:
            DatasetError: there is something of that name, or no classes.
        """
        if not classes:
            raise DatasetError("A data set needs at least one class; is the labelling configuration empty?")
        self.output = output.parent / (output.name.removesuffix(".zip") + ".zip") if zipped else output
        self.classes = tuple(classes)
        self._images, self._force, self._zipped, self._source = images, force, zipped, dict(source or {})
        if not force:
            _refuse_existing(self.output)
        self._indices = {name: index for index, name in enumerate(self.classes)}
        self._counts: Counter[str] = Counter()
        self._pictures: Counter[str] = Counter()
        self._notes: Counter[str] = Counter()
        self._names: set[str] = set()
        self._ends = ExitStack()

    @abstractmethod
    def add(self, picture: LabelledPicture, data: bytes | None = None) -> None:
        """Write a picture with its shapes.

        Args:
            picture: goes to ``train`` where it has no split.
            data: bytes of its file; by default those at its path.

        Raises:
            OSError: the disk is full, or the picture cannot be read.
        """

    @abstractmethod
    def finish(self) -> None:
        """Write what is known only at the end."""

    def __enter__(self) -> Self:
        place = unfinished(self.output.absolute().parent, f".{self.output.name}.partial-")
        self.folder = self._ends.enter_context(place)
        self.folder.chmod(0o755)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.finish()
                self._mark()
                self._publish()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
            self._ends.close()

    @property
    def counted(self) -> dict[str, int]:
        """Pictures so far, by split."""
        return dict(self._pictures)

    def note(self, what: str, count: int = 1) -> None:
        """Count something that was changed or left out."""
        self._notes[what] += count

    def place(self, picture: LabelledPicture, data: bytes | None, folder: str) -> str:
        """Give a picture a name that no other one has, and put its file into a folder of the data set.

        Returns:
            The file's name there; no other picture of the data set has its stem.
        """
        name = self.unique_name(picture)
        if self._images != "none":
            target = self.folder / folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if data is not None:
                target.write_bytes(data)
            elif self._images == "link":
                _link(picture.path, target)
            else:
                shutil.copyfile(picture.path, target)
        self._pictures[picture.split or "train"] += 1
        return name

    def unique_name(self, picture: LabelledPicture) -> str:
        """A name for a picture's file, after the picture's own, whose stem no other picture of the set has."""
        parts = picture.name.split("/")
        stem, dot, suffix = parts[-1].rpartition(".")
        if not dot or f".{suffix.lower()}" not in PICTURES:
            stem, suffix = parts[-1], "jpg"
        stem = safe_name(stem)
        if stem.casefold() in self._names and len(parts) > 1:
            stem = safe_name("-".join([*parts[:-1], stem]))
        tried, number = stem, 1
        while tried.casefold() in self._names:
            number += 1
            tried = f"{stem}-{number}"
        self._names.add(tried.casefold())
        return f"{tried}.{suffix.lower()}"

    def _mark(self) -> None:
        about = {
            "type": self.dataset_type,
            "classes": {name: self._counts[name] for name in self.classes},
            "pictures": dict(sorted(self._pictures.items())),
            "images": self._images != "none",
            "source": self._source,
            "created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        (self.folder / MARKER).write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", "utf-8")

    def _publish(self) -> None:
        ready = _pack(self.folder) if self._zipped else self.folder
        try:
            moved = _move_aside(self.output) if self._force else None
            _refuse_existing(self.output)
            if self.output.is_dir():
                self.output.rmdir()  # it is empty
            ready.rename(self.output)
        finally:
            if self._zipped:
                ready.unlink(missing_ok=True)
        classes = {name: self._counts[name] for name in self.classes}
        notes = tuple(f"{what}: {count}." for what, count in self._notes.items())
        self.written = Written(
            self.output, self.dataset_type, dict(sorted(self._pictures.items())), classes, notes, moved
        )


def safe_name(text: str) -> str:
    """Text as part of a file's name on any system: letters and digits of any script, ``-_.()+@`` and blanks."""
    kept = re.sub(r"[^\w\-.()+@ ]", "_", unicodedata.normalize("NFC", text)).strip(". ")
    while len(kept.encode()) > LONGEST_STEM:
        kept = kept[:-1].strip(". ")
    return f"_{kept}" if not kept or kept.split(".")[0].lower() in RESERVED else kept


def written_by_tator(folder: Path) -> dict[str, Any] | None:
    """What the marker of a data set says; None for a folder that Tator did not write."""
    try:
        about = json.loads((folder / MARKER).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return about if isinstance(about, dict) and "type" in about else None


def _refuse_existing(output: Path) -> None:
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise DatasetError(f"There is something at {output}; choose another --output, or --force to move it aside.")


def _move_aside(output: Path) -> Path | None:
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return None
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    aside, number = output.with_name(f"{output.name}.before-{stamp}"), 1
    while aside.exists():
        number += 1
        aside = output.with_name(f"{output.name}.before-{stamp}-{number}")
    return output.rename(aside)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def _pack(folder: Path) -> Path:
    handle, name = tempfile.mkstemp(prefix=f"{folder.name}-", suffix=".zip", dir=folder.parent)
    os.close(handle)
    packed = Path(name)
    packed.chmod(0o644)
    try:
        with zipfile.ZipFile(packed, "w") as archive:
            for path in sorted(folder.rglob("*")):
                method = zipfile.ZIP_STORED if path.suffix.lower() in STORED else zipfile.ZIP_DEFLATED
                archive.write(path, path.relative_to(folder).as_posix(), method)
    except BaseException:
        packed.unlink(missing_ok=True)
        raise
    return packed
