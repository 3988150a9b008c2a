"""A data set in files → tasks of a project, each picture exactly once, whatever is killed or cut on the way.

Label Studio knows no key of a task that we could choose, so each task that is made carries one in its ``meta``
(``{"tator": {"import": ID, "key": KEY}}``), and what is there is read back before anything is sent. The key is the
picture's address, or, where pictures are uploaded, its name with a hash of its content. Tasks travel together with
their annotations or predictions, a thousand in a request, which Label Studio (1.23.2) writes in one transaction; the
next thousand is read meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from label_config.errors import LabelConfigError
from label_config.interface import ImageTag, Interface
from label_config.reader import read_cached
from tator_sdk import bulk
from tator_sdk.delivery import Delivery, Item
from tator_sdk.errors import TatorError
from tator_sdk.formats import open_dataset
from tator_sdk.formats.dataset import BadLine, DatasetReader, LabelledPicture
from tator_sdk.import_record import ImportRecord, ImportRecords, mark_of
from tator_sdk.matching import Matching
from tator_sdk.picture_addresses import Addresses, LocalFiles, Uploaded, UrlPrefix
from tator_sdk.push import Moment
from tator_sdk.regions import Region
from tator_sdk.requests import DataImport
from tator_sdk.settings import Settings
from tator_sdk.shape_regions import ShapeWriter, Written
from tator_sdk.studio import StudioError

Progress = Callable[[int, int, str], None]
"""Called with pictures done, pictures in all, and what is going on."""


@dataclass
class ImportReport:
    """What an import did, or would do.

    Attributes:
        project: it goes into.
        id: of the import; empty for a dry run.
        pictures: that were read.
        created: pictures whose shapes are new in the project, as tasks or on tasks that were there.
        there: pictures that were imported before.
        foreign: pictures whose address a task has that no import made: left alone.
        unmatched: with ``match``, pictures that no task has, or several have, or whose task another one has taken.
        empty: pictures without shapes.
        nbytes: size of the picture files that are uploaded.
        bad: lines that were left out, and pictures that cannot be read.
        refused: pictures that Label Studio refused.
        shapes: what the shapes became.
        notes: what else there is to know, in sentences.
    """

    project: int
    id: str = ""
    pictures: int = 0
    created: int = 0
    there: int = 0
    foreign: int = 0
    unmatched: int = 0
    empty: int = 0
    nbytes: int = 0
    bad: int = 0
    refused: int = 0
    shapes: Written = field(default_factory=Written)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """JSON values, for the record."""
        return {
            **{name: value for name, value in vars(self).items() if name != "shapes"},
            **{name: dict(value) for name, value in vars(self.shapes).items()},
        }


class Importer:
    """Imports one data set.

    Attributes:
        report: how far it is.
    """

    def __init__(
        self,
        request: DataImport,
        settings: Settings,
        progress: Progress = lambda done, total, what: None,
        bad: Callable[[BadLine], None] = lambda line: None,
        moments: Callable[[Moment], None] = lambda moment: None,
    ) -> None:
        """Look at the project; nothing is changed yet.

        Args:
            request: what is imported, and how.
            settings: of this installation.
            progress: told how far it is.
            bad: told each line that is left out, and why.
            moments: called at each `Moment` of each request; what interrupts there is survived.

        Raises:
            TatorError: the project cannot take it, or Label Studio does not answer.
        """
        self.report = ImportReport(request.project)
        self._request, self._settings = request, settings
        self._progress, self._bad, self._moments = progress, bad, moments
        self._api = bulk.open_bulk(settings)
        interface = self._interface()
        self._image = image_tag(interface, request.project)
        self._writer = ShapeWriter(interface, self._image)
        self._addresses = self._place_of_pictures()
        self._ours: set[str] = set()
        self._foreign: set[str] = set()
        self._twice = False

    def run(self, dry_run: bool = False) -> ImportReport:
        """Import it, or only find out what would happen.

        Raises:
            TatorError: the data set cannot be used, or Label Studio refuses or does not answer.
        """
        begun = time.monotonic()
        request = self._request
        with self._api, closing(self._opened()) as reader:
            self.report.notes += [*reader.notes, *self._about_storage()]
            if dry_run:
                self._look(reader)
            else:
                records = ImportRecords(self._settings)
                with records.alone(request.project):
                    record = records.begin(request.project, request.model_dump(mode="json"))
                    self.report.id = record.id
                    self._import(reader, record, records)
                    self.report.seconds = time.monotonic() - begun
                    records.close(record, "done", self.report.as_json())
        self.report.seconds = time.monotonic() - begun
        return self.report

    def _import(self, reader: DatasetReader, record: ImportRecord, records: ImportRecords) -> None:
        if self._request.match:
            with Matching(self._api, self._settings, self._request, record, self._moments) as matching:
                self._through(reader, matching.add, matching)
                self._progress(self.report.pictures, self.report.pictures, "completing")
                self.report.created, self.report.there, self.report.refused = matching.complete()
            return
        notes, name = records.folder / record.id, self._image.value_key
        delivery = Delivery(self._api, self._request, record, name, self._addresses, notes, self._moments)
        delivery.settle()
        self._find_there(record)
        delivery.doubtful |= self._twice
        self._through(reader, delivery.send, None)
        self.report.created, self.report.refused = delivery.created, len(delivery.refused)
        self.report.notes += delivery.refused
        if doubles := delivery.remove_doubles():
            self.report.notes.append(f"{doubles} tasks that came through twice were removed again.")

    def _look(self, reader: DatasetReader) -> None:
        """Go through all pictures and change nothing."""
        if self._request.match:
            with Matching(self._api, self._settings, self._request, None, self._moments) as matching:
                self._through(reader, matching.add, matching)
                self.report.created = matching.found
            return
        self._find_there(None)

        def count(batch: list[Item]) -> None:
            self.report.created += len(batch)

        self._through(reader, count, None)

    def _through(self, reader: DatasetReader, send: Callable[[list[Item]], None], matching: Matching | None) -> None:
        """Go through all pictures, sending one batch while the next is read."""
        waiting: Future[None] | None = None
        with ThreadPoolExecutor(1) as pool:
            for batch in self._batches(reader, matching):
                if waiting is not None:
                    waiting.result()
                waiting = pool.submit(send, batch)
            if waiting is not None:
                waiting.result()
        for line in reader.strays():
            self._left_out(line)
        self.report.shapes = self._writer.written
        self.report.notes += self._about_classes()

    def _batches(self, reader: DatasetReader, matching: Matching | None) -> Iterator[list[Item]]:
        uploads = isinstance(self._addresses, Uploaded) and matching is None
        most = Delivery.UPLOADED_TOGETHER if uploads else Delivery.TASKS_TOGETHER
        batch: list[Item] = []
        regions = 0
        for picture in reader.pictures():
            self.report.pictures += 1
            for line in picture.bad:
                self._left_out(line)
            key = self._new_key(picture, matching)
            if key is not None:
                self.report.nbytes += picture.path.stat().st_size if uploads else 0
                batch.append(self._item(picture, key))
                regions += len(batch[-1].result)
            if len(batch) == most or regions >= Delivery.REGIONS_TOGETHER:
                yield batch
                batch, regions = [], 0
            self._progress(self.report.pictures, len(reader), "pictures")
        if batch:
            yield batch

    def _new_key(self, picture: LabelledPicture, matching: Matching | None) -> str | None:
        """The picture's key; None where it is there, or cannot be referred to."""
        try:
            picture.name.encode()
        except UnicodeEncodeError:  # a file system takes any bytes for a name
            self._left_out(BadLine(picture.path, 0, "its name is not UTF-8; rename it"))
            return None
        if matching is not None:
            found = matching.has(picture, self._left_out)
            self.report.unmatched += not found
            return picture.name if found else None
        try:
            key = self._addresses.key(picture)
        except (TatorError, OSError) as error:
            self._left_out(BadLine(picture.path, 0, str(error)))
            return None
        if key in self._ours or key in self._foreign:
            self.report.there += key in self._ours
            self.report.foreign += key not in self._ours
            return None
        self._ours.add(key)
        return key

    def _item(self, picture: LabelledPicture, key: str) -> Item:
        result: list[Region] = self._writer.regions(picture.shapes, picture.size_wh, f"{self.report.pictures:x}-")
        self.report.empty += not picture.shapes
        labelled = bool(result) or (self._request.empty_as_annotation and not picture.shapes)
        return Item(picture, key, result, labelled)

    def _left_out(self, line: BadLine) -> None:
        self.report.bad += 1
        self._bad(line)

    def _find_there(self, record: ImportRecord | None) -> None:
        """Read the keys of pictures that imports brought, and the addresses that other tasks have."""
        tasks = self._api.tasks(self._request.project, "id", "data", "meta")
        for number, task in enumerate(tasks, 1):
            self._progress(number, 0, "tasks that are there")
            mark = mark_of(task)
            address = (task.get("data") or {}).get(self._image.value_key)
            if mark is not None:
                self._twice |= record is not None and mark["import"] == record.id and mark["key"] in self._ours
                self._ours.add(mark["key"])
            elif isinstance(address, str):
                self._foreign.add(address)

    def _opened(self) -> DatasetReader:
        request = self._request
        if request.local_files is not None and request.path.is_file() and request.path.suffix.lower() == ".zip":
            raise TatorError(
                f"Pictures in a zip cannot be served as local files: unpack {request.path} below "
                f"{request.local_files}, or leave --local-files out to upload them."
            )
        absent = request.url_prefix is not None or request.match

        def unpacked(done: int, total: int) -> None:
            self._progress(done >> 20, total >> 20, "unpacking, MiB")

        return open_dataset(
            request.path, request.kind, images=request.images, names=request.names, absent=absent, progress=unpacked
        )

    def _place_of_pictures(self) -> Addresses:
        request = self._request
        if request.local_files is not None:
            return LocalFiles(request.local_files)
        if request.url_prefix is not None:
            return UrlPrefix(request.url_prefix)
        return Uploaded(self._api, request.project)

    def _interface(self) -> Interface:
        number = self._request.project
        try:
            project = self._api.get(f"/api/projects/{number}")
        except StudioError as error:
            if error.status != 404:
                raise
            raise TatorError(f"Project {number} does not exist in {self._settings.label_studio_url}.") from error
        try:
            return read_cached(str(project.get("label_config") or ""))
        except LabelConfigError as error:
            raise TatorError(f"Project {number}: {error}") from error

    def _about_classes(self) -> list[str]:
        missing = list(self._writer.written.missing)
        if not missing:
            return []
        again = "" if not self.report.id else f", then `tator import --undo {self.report.id}` and import again"
        return [
            f"The configuration has no label for {', '.join(missing)}. To have their shapes, add "
            f"{self._writer.mend(missing)}{again}."
        ]

    def _about_storage(self) -> list[str]:
        """Label Studio serves local files only to projects that have a storage for their folder."""
        if self._request.local_files is None:
            return []
        rows = self._api.get("/api/storages/localfiles", project=self._request.project)
        if rows:
            return []
        return [
            "The project has no Local files storage, without which Label Studio does not show these pictures: add "
            "one for their folder under Settings → Cloud Storage (nothing needs to be synced)."
        ]


def image_tag(interface: Interface, project: int) -> ImageTag:
    """The image that takes the pictures: the first that has a tag for shapes.

    Raises:
        TatorError: there is none; the message says what to do.
    """
    how = f'`tator label-config --classes "…" --project {project}` prints one to paste under Settings.'
    if not interface.images:
        raise TatorError(f"Project {project} has no labelling configuration with an <Image>: {how}")
    fit = [image for image in interface.images if image.value_key and not image.is_list]
    usable = [image for image in fit if any(control.labels for control in interface.outputs_for(image))]
    if not usable:
        raise TatorError(
            f"The labelling configuration of project {project} has no tag with labels that could hold shapes, such as "
            f"RectangleLabels or PolygonLabels: {how}"
        )
    if not usable[0].value_key.isidentifier():
        raise TatorError(f"The <Image> of project {project} takes ${usable[0].value_key}; only plain names are filled.")
    return usable[0]
