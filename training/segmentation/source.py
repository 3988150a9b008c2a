"""Where the builder's pictures and boxes come from: a project, or a data set in files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from label_config.errors import LabelConfigError
from label_config.interface import Interface
from label_config.reader import read_cached
from tator_ml.images.fetch import ImageFetcher
from tator_ml.images.store import ImageStore
from tator_sdk.errors import TatorError
from tator_sdk.formats import open_dataset
from tator_sdk.formats.dataset import Outline, enclosing_xyxy
from tator_sdk.geometry import Xyxy
from tator_sdk.images import ImageError
from tator_sdk.picture_addresses import address_name
from tator_sdk.requests import SegmentationBuild
from tator_sdk.settings import Settings
from tator_sdk.studio import LABELLED, open_studio, sentences
from training.standing import marked

PAGE_TASKS = 100


@dataclass(frozen=True, eq=False)
class Drawn:
    """An object of the source.

    Attributes:
        label: its class.
        xyxy: the upright box around it, pixels.
        outline: where it was drawn as one, which is then kept.
    """

    label: str
    xyxy: Xyxy
    outline: Outline | None = None


@dataclass(frozen=True, eq=False)
class SourcePicture:
    """A picture with what stands on it.

    Attributes:
        name: of its file.
        size_wh: in pixels.
        drawn: what stands on it.
        split: ``train``, ``val``, ``test``; empty where the source is not split.
        path: of the file, for a source of files.
        address: for a project: the picture's, in
        task: this one, on
        image_name: this tag, at page
        item_index: of its list.
    """

    name: str
    size_wh: tuple[int, int]
    drawn: tuple[Drawn, ...]
    split: str = ""
    path: Path | None = None
    address: str = ""
    task: int = 0
    image_name: str = ""
    item_index: int = 0

    @property
    def key(self) -> str:
        """Names picture and boxes: what was made for other boxes, or of another file, is not taken for this."""
        about: list[object] = [self.name, self.size_wh, [(one.label, one.xyxy) for one in self.drawn]]
        if self.path is not None:
            stat = self.path.stat()
            about += [str(self.path), stat.st_size, stat.st_mtime_ns]
        about += [self.address, self.task, self.image_name, self.item_index]
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]


class Source(Protocol):
    """Pictures with boxes.

    Attributes:
        classes: names, in order.
        notes: what was left out, in sentences; complete once all pictures were seen.
    """

    classes: tuple[str, ...]
    notes: list[str]

    def count(self) -> int:
        """Pictures in all, about: for the progress."""

    def pictures(self, shard: int = 0, shards: int = 1) -> Iterator[SourcePicture]:
        """Those of a shard, in an order that is the same every time."""

    def image(self, picture: SourcePicture) -> str:
        """Bring a picture into the store; returns its content hash.

        Raises:
            ImageError: it cannot be had.
        """

    def close(self) -> None:
        """Give back what is held open."""


def open_source(request: SegmentationBuild, settings: Settings, store: ImageStore) -> Source:
    """The source that a request names.

    Raises:
        TatorError: it cannot be used, or has no classes.
    """
    if request.path is not None:
        return Folder(request.path, settings, store)
    return Project(request.project or 0, settings, store)


class Folder:
    """A data set in files; `Source`."""

    def __init__(self, path: Path, settings: Settings, store: ImageStore) -> None:
        """Open it.

        Raises:
            DatasetError: nothing there can be used, or it names no classes.
        """
        self._reader = open_dataset(path)
        self.classes = self._reader.classes
        self.notes: list[str] = list(self._reader.notes)
        self._most_bytes = settings.image_max_bytes
        self._store = store

    def count(self) -> int:
        """See `Source`."""
        return len(self._reader)

    def pictures(self, shard: int = 0, shards: int = 1) -> Iterator[SourcePicture]:
        """See `Source`."""
        self.notes = list(self._reader.notes)
        for number, one in enumerate(self._reader.pictures()):
            if number % shards != shard:
                continue
            self.notes += [str(bad) for bad in one.bad]
            drawn = tuple(
                Drawn(
                    shape.label, enclosing_xyxy(shape.shape), shape.shape if isinstance(shape.shape, Outline) else None
                )
                for shape in one.shapes
            )
            yield SourcePicture(one.name, one.size_wh, drawn, one.split, one.path)
        if shard == 0:
            self.notes += [str(stray) for stray in self._reader.strays()]

    def image(self, picture: SourcePicture) -> str:
        """See `Source`."""
        if picture.path is None:
            raise ImageError("The picture has no file.")
        try:
            if picture.path.stat().st_size > self._most_bytes:
                raise ImageError(f"{picture.path} is too large; raise TATOR_IMAGE_MAX_BYTES.")
            return self._store.put(picture.path.read_bytes())
        except OSError as error:
            raise ImageError(f"{picture.path} cannot be read ({error.strerror}).") from error

    def close(self) -> None:
        """See `Source`."""
        self._reader.close()


class Project:
    """The annotated tasks of a Label Studio project; `Source`."""

    def __init__(self, project: int, settings: Settings, store: ImageStore) -> None:
        """Read its configuration.

        Raises:
            TatorError: it has no labels, or Label Studio does not answer.
        """
        self._studio: Any = open_studio(settings)
        self._url, self._project = settings.label_studio_url, project
        with sentences(self._url):
            about = self._studio.projects.get(project)
        try:
            self.interface: Interface = read_cached(str(about.label_config or ""))
        except LabelConfigError as error:
            raise TatorError(str(error)) from error
        self.classes = self.interface.labels
        if not self.classes:
            raise TatorError(f"The labelling configuration of project {project} has no labels, so no classes.")
        self.notes: list[str] = []
        self._count = int(about.num_tasks_with_annotations or 0)
        self._fetcher = ImageFetcher(settings, store)

    def count(self) -> int:
        """See `Source`."""
        return self._count

    def pictures(self, shard: int = 0, shards: int = 1) -> Iterator[SourcePicture]:
        """See `Source`."""
        seen: set[int] = set()  # pages shift where somebody labels meanwhile
        page = shard + 1
        while tasks := self._page(page):  # the project's own count may be behind
            page += shards
            for task in tasks:
                if int(task.id) not in seen:
                    seen.add(int(task.id))
                    yield from self._of(task)

    def image(self, picture: SourcePicture) -> str:
        """See `Source`."""
        return self._fetcher.fetch(picture.address, picture.task).image

    def close(self) -> None:
        """See `Source`."""
        self._fetcher.close()

    def _page(self, page: int) -> list[Any]:
        from label_studio_sdk.core.api_error import ApiError

        with sentences(self._url):
            try:
                listed = self._studio.tasks.list(
                    project=self._project, query=LABELLED, page=page, page_size=PAGE_TASKS, fields="all"
                )
                return list(listed.items or [])
            except ApiError as error:
                if error.status_code == 404:  # there is no such page
                    return []
                raise

    def _of(self, task: Any) -> Iterator[SourcePicture]:
        found = marked(task, self.interface)
        pictures: dict[tuple[str, int], list[Any]] = {}
        for box in found.boxes:
            pictures.setdefault((box.image_name, box.item_index), []).append(box)
        for place, boxes in pictures.items():
            address = found.addresses.get(place)
            if address is None:
                self.notes.append(f"Task {found.task} has no picture for the tag '{place[0]}'.")
                continue
            drawn = tuple(Drawn(box.label, box.xyxy) for box in boxes)
            name = f"{found.task}-{address_name(address) or 'picture.png'}"
            yield SourcePicture(name, boxes[0].size_wh, drawn, "", None, address, found.task, *place)


def count_boxes(source: Source) -> tuple[int, int]:
    """Pictures and boxes of a source, read through once; closes nothing."""
    pictures = boxes = 0
    for one in source.pictures():
        pictures += 1
        boxes += len(one.drawn)
    return pictures, boxes


def counted(request: SegmentationBuild, settings: Settings, store: ImageStore) -> tuple[Source, int, int]:
    """A source with its pictures and boxes, for a dry run."""
    with closing(open_source(request, settings, store)) as source:
        return (source, *count_boxes(source))
