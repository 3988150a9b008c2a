"""A Label Studio project → a data set on disk."""

from __future__ import annotations

import hashlib
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import httpx

from label_config.reader import read_cached
from tator_sdk.datasets import DatasetRecord, DatasetRegistry
from tator_sdk.downloads import PictureSource
from tator_sdk.export_source import TaskPicture, project_pictures
from tator_sdk.formats.dataset import DatasetError, LabelledPicture, LabelledShape
from tator_sdk.formats.pictures import is_picture
from tator_sdk.formats.write_coco import CocoWriter
from tator_sdk.formats.write_crops import CropsWriter
from tator_sdk.formats.write_yolo import YoloWriter
from tator_sdk.formats.writing import DatasetWriter, Images, Written
from tator_sdk.held_out import held_out_share
from tator_sdk.images import ImageError, image_size, image_suffix
from tator_sdk.picture_addresses import address_name
from tator_sdk.requests import Export
from tator_sdk.settings import Settings
from tator_sdk.shapes import scaled
from tator_sdk.studio import open_studio, sentences

Form = Literal["yolo", "yolo-seg", "yolo-obb", "coco", "crops"]
FORMS: tuple[str, ...] = get_args(Form)
FETCHED_AT_ONCE = 4
WAITING = 12  # pictures that are fetched ahead of the one being written
SAME_ASPECT = 0.01
RETRY_SECONDS = (1.0, 4.0)
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Exported:
    """What came of an export.

    Attributes:
        pictures: that were, or would be, written; by split, for a dry run under ``""``.
        classes: shapes of each class, in the order of the configuration.
        problems: regions that give no shape and pictures that could not be had, in sentences.
        written: what was written; None for a dry run.
        record: in the registry of data sets.
    """

    pictures: dict[str, int]
    classes: dict[str, int]
    problems: tuple[str, ...]
    written: Written | None = None
    record: DatasetRecord | None = None


@dataclass
class _Fetched:
    """A picture of a task, with its file."""

    of: TaskPicture
    data: bytes | None = None
    size_wh: tuple[int, int] = (0, 0)
    error: str = ""
    shapes: tuple[LabelledShape, ...] = field(default=())


def export(
    form: Form, request: Export, settings: Settings, progress: Progress = lambda *_: None, job: str | None = None
) -> Exported:
    """Write a project's annotations as a data set, and register it.

    Args:
        form: ``yolo`` boxes, ``yolo-seg`` polygons, ``yolo-obb`` oriented boxes, ``coco``, or ``crops``.
        request: what to write, and where.
        settings: of Label Studio, the limits of pictures, and Tator's folder.
        progress: told the pictures done, of how many, and what is being done.
        job: that does it, kept in the marker: what it wrote before it was killed it need not write again.

    Raises:
        TatorError: Label Studio does not answer, there is something at the output, or nothing to export.
    """
    if form == "crops" and not request.images:
        raise DatasetError("Crops are pictures: leave --no-images out.")
    studio: Any = open_studio(settings)
    url = settings.label_studio_url
    with sentences(url):
        about = studio.projects.get(request.project)
    interface = read_cached(about.label_config or "")
    total = int((about.num_tasks_with_annotations if request.predictions is None else about.task_number) or 0)
    source = {"project": request.project, "title": about.title or "", "predictions": request.predictions}
    source |= {"job": job} if job else {}
    pictures = _counted(project_pictures(studio, url, request, interface), total, progress)
    if not request.empty:
        pictures = (one for one in pictures if one.shapes or one.left_out)
    if request.dry_run:
        return _only_counted(pictures, interface.labels)
    writer = _writer(form, request, interface.labels, source)
    problems: list[str] = []
    with writer:
        with closing(PictureSource(settings)) as download:
            for one in _fetched(pictures, download, settings, request):
                _write(writer, one, request, problems)
        if not sum(writer.counted.values()):
            what = f"prediction of {request.predictions}" if request.predictions else "annotated task"
            said = f" First of {len(problems)} problems: {problems[0]}" if problems else ""
            raise DatasetError(f"Project {request.project} has no {what} whose picture can be exported.{said}")
    record = DatasetRegistry(settings.home).register(writer.written.path, source=source)
    return Exported(writer.written.pictures, writer.written.classes, tuple(problems), writer.written, record)


def _writer(form: Form, request: Export, classes: tuple[str, ...], source: dict[str, Any]) -> DatasetWriter:
    images: Images = "copy" if request.images else "none"
    output = Path(request.output)
    if form == "coco":
        return CocoWriter(output, classes, images=images, force=request.force, zipped=request.zip, source=source)
    if form == "crops":
        return CropsWriter(output, classes, force=request.force, zipped=request.zip, source=source)
    kinds: dict[str, Literal["detect", "segment", "obb"]]
    kinds = {"yolo": "detect", "yolo-seg": "segment", "yolo-obb": "obb"}
    return YoloWriter(
        output, classes, kinds[form], images=images, force=request.force, zipped=request.zip, source=source
    )


def _counted(pictures: Iterable[TaskPicture], total: int, progress: Progress) -> Iterator[TaskPicture]:
    for done, one in enumerate(pictures):
        progress(done, max(total, done), "exporting")
        yield one
    progress(total, total, "exporting")


def _only_counted(pictures: Iterable[TaskPicture], classes: tuple[str, ...]) -> Exported:
    counts: Counter[str] = Counter()
    problems: list[str] = []
    number = 0
    for one in pictures:
        number += 1
        counts.update(shape.label for shape in one.shapes)
        problems += one.left_out
    return Exported({"": number}, {name: counts[name] for name in classes}, tuple(problems))


def _fetched(
    pictures: Iterable[TaskPicture], download: PictureSource, settings: Settings, request: Export
) -> Iterator[_Fetched]:
    """Pictures with their files, in their order, some of them fetched ahead."""
    if not request.images:
        yield from (_Fetched(one, size_wh=one.shapes[0].size_wh if one.shapes else (0, 0)) for one in pictures)
        return
    waiting: deque[Future[_Fetched]] = deque()
    with ThreadPoolExecutor(FETCHED_AT_ONCE) as pool:
        try:
            for one in pictures:
                waiting.append(pool.submit(_fetch, one, download, settings))
                if len(waiting) >= WAITING:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _fetch(one: TaskPicture, download: PictureSource, settings: Settings) -> _Fetched:
    for wait in (*RETRY_SECONDS, None):
        try:
            data = download.read(one.address, one.task).data or b""
            return _Fetched(one, data, image_size(data, settings.image_max_pixels))
        except ImageError as error:
            if wait is None or not isinstance(error.__cause__, httpx.HTTPError):
                return _Fetched(one, error=str(error))
            time.sleep(wait)
    raise AssertionError("unreachable")


def _write(writer: DatasetWriter, one: _Fetched, request: Export, problems: list[str]) -> None:
    """Write a picture, or say why not."""
    task = one.of.task
    problems += one.of.left_out
    if one.error:
        problems.append(f"task {task}: {one.error}")
        return
    if not all(one.size_wh):
        problems.append(f"task {task}: how large its picture is nobody knows, since nothing stands on it")
        return
    shapes = []
    for region in one.of.shapes:
        factors = one.size_wh[0] / region.size_wh[0], one.size_wh[1] / region.size_wh[1]
        if abs(factors[0] / factors[1] - 1) > SAME_ASPECT:
            said = "{} x {}, but its picture is {} x {}".format(*region.size_wh, *one.size_wh)
            problems.append(f"task {task}: region {region.region} was drawn on {said}")
            continue
        shapes.append(LabelledShape(region.label, scaled(region.shape, factors)))
    content = hashlib.sha256(one.data if one.data is not None else one.of.address.encode()).hexdigest()
    split = "val" if held_out_share(content, request.seed) < request.val_share else "train"
    # an upload's keeps the digits that Label Studio put before it, so that `tator import --match` finds its one task
    name = address_name(one.of.address) or "picture"
    if one.data is not None and not is_picture(name):
        name += image_suffix(one.data, one.size_wh[0] * one.size_wh[1])
    try:
        writer.add(LabelledPicture(Path(name), name, one.size_wh, tuple(shapes), split), one.data)
    except ImageError as error:
        problems.append(f"task {task}: {error}")
