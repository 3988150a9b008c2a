"""Where a head's examples come from: a Label Studio project, or a YOLO folder."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from label_config.reader import Interface, read_cached
from tator_ml.images.decode import ImageError, image_size
from tator_ml.images.fetch import ImageFetcher
from tator_ml.images.store import ImageStore
from tator_ml.learning.embeddings import ImageBox
from tator_ml.learning.examples import Examples, revision
from tator_ml.learning.stores import example_store
from tator_sdk.annotations import addresses_of, labelled_boxes
from tator_sdk.formats.dataset import enclosing_xyxy
from tator_sdk.formats.yolo import YoloReader
from tator_sdk.geometry import Xyxy, area_xyxy
from tator_sdk.requests import HeadTraining
from tator_sdk.settings import Settings
from tator_sdk.studio import StudioError, labelled_tasks, open_studio, sentences
from training.job import Job

log = logging.getLogger(__name__)

BACKGROUND = "(none of these)"
BACKGROUND_OVERLAP = 0.1  # of an empty place, that any one labelled box may cover


@dataclass(frozen=True)
class Item:
    """A labelled box on a picture; ``source`` says where it stands, as JSON values."""

    box: ImageBox
    label: str
    source: dict[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Dataset:
    """Examples with their pictures.

    Attributes:
        items: in a fixed order.
        classes: names in the order that the configuration or label map has them.
        sizes_wh: of the pictures by content hash.
        provide: brings a picture's bytes into the image store, if they are not there.
        notes: what was left out, in sentences.
    """

    items: tuple[Item, ...]
    classes: tuple[str, ...]
    sizes_wh: dict[str, tuple[int, int]]
    provide: Callable[[str], None]
    notes: tuple[str, ...] = ()


def read_dataset(
    request: HeadTraining, settings: Settings, store: ImageStore, job: Job, trains: bool = True
) -> Dataset:
    """The examples that a request names; without ``trains`` what is new stays to be learned.

    Raises:
        TatorError: they cannot be read.
    """
    if request.project is not None:
        return of_project(request.project, settings, store, job, request.sync, trains)
    return of_yolo(request, settings, store, job)


def of_project(
    project: int, settings: Settings, store: ImageStore, job: Job, sync: bool, trains: bool = True
) -> Dataset:
    """A project's annotations: those that webhooks told of, after a synchronisation if asked."""
    examples, fetcher = example_store(settings), ImageFetcher(settings, store)
    try:
        interface = synchronise(project, settings, examples, job) if sync else _interface(project, settings)
        notes = _resolve(project, examples, fetcher, job)
        taken_at = examples.now()
        found = examples.of_project(project)
        if trains:
            examples.learned(project, taken_at)  # what arrives from here on counts towards the next training
    finally:
        examples.close()
    classes = interface.labels
    items, sizes, places = [], {}, {}
    for one in found:
        if one.image is not None and one.label in classes:
            source = {"task": one.task, "annotation": one.annotation, "region": one.region}
            items.append(Item(ImageBox(one.image, one.xyxy), one.label, source))
            sizes[one.image] = one.size_wh
            places[one.image] = (one.address, one.task)

    def provide(image: str) -> None:
        if image not in store:
            address, task = places[image]
            if fetcher.fetch(address, task).image != image:
                raise ImageError(f"The picture {address} has changed since it was labelled.")

    return Dataset(tuple(items), classes, sizes, provide, tuple(notes))


def synchronise(project: int, settings: Settings, examples: Examples, job: Job) -> Interface:
    """Bring the examples up to date with the project, a page of tasks at a time.

    Webhooks go on meanwhile: what they deleted stays so, and what no page had is gone only where Label Studio says so.
    """
    studio: Any = open_studio(settings)
    present = []
    with sentences(settings.label_studio_url):
        about = studio.projects.get(project)
        interface = read_cached(about.label_config or "")
        total = int(about.num_tasks_with_annotations or 0)
        known = examples.known(project)
        for done, task in enumerate(labelled_tasks(studio, settings.label_studio_url, project), 1):
            if done % 20 == 0:
                job.progress(done, max(total, done), "reading annotations")
            addresses = addresses_of(interface, task.data or {})
            for annotation in task.annotations or []:
                number, updated = int(annotation["id"]), revision(annotation.get("updated_at"), interface, addresses)
                if annotation.get("was_cancelled") or (number in known and not examples.knows(project, number)):
                    continue
                present.append(number)
                if known.get(number) != updated:
                    boxes = labelled_boxes(annotation.get("result") or [], interface)
                    examples.put(project, int(task.id), number, updated, boxes, addresses, newer_stays=True)
    unseen = sorted(set(known) - set(present))
    present += [one for one in unseen if examples.knows(project, one) and not _is_gone(studio, settings, one)]
    gone = examples.keep_only(project, present, known)
    job.log(f"{len(present)} annotations in project {project}; {gone} of those known before are gone")
    return interface


def _is_gone(studio: Any, settings: Settings, annotation: int) -> bool:
    """Whether an annotation is deleted, or skipped since: a task may slip from page to page as somebody labels."""
    try:
        with sentences(settings.label_studio_url):
            return bool(studio.annotations.get(id=annotation).was_cancelled)
    except StudioError as error:
        if error.status == 404:
            return True
        raise


def _interface(project: int, settings: Settings) -> Interface:
    studio: Any = open_studio(settings)
    with sentences(settings.label_studio_url):
        return read_cached(studio.projects.get(project).label_config or "")


def _resolve(project: int, examples: Examples, fetcher: ImageFetcher, job: Job) -> list[str]:
    """Fetch the pictures whose content is not known yet; returns a note for each that cannot be had."""
    unknown = sorted({(one.address, one.task) for one in examples.of_project(project) if one.image is None})
    notes: list[str] = []

    def fetched(place: tuple[str, int]) -> tuple[str, str | ImageError]:
        try:
            return place[0], fetcher.fetch(*place).image
        except ImageError as error:
            return place[0], error

    with ThreadPoolExecutor(4) as pool:
        for done, (address, found) in enumerate(pool.map(fetched, unknown), 1):
            job.progress(done, len(unknown), "fetching pictures")
            if isinstance(found, ImageError):
                notes.append(str(found))
            else:
                examples.set_image(project, address, found)
    return notes


def of_yolo(request: HeadTraining, settings: Settings, store: ImageStore, job: Job) -> Dataset:
    """A folder's boxes; bad lines are noted with file and line, and never stop the good ones."""
    assert request.images_path is not None  # noqa: S101
    reader = YoloReader(request.images_path.expanduser(), labels=request.labels_path, names=request.labelmap_path)
    items: list[Item] = []
    sizes: dict[str, tuple[int, int]] = {}
    paths: dict[str, Path] = {}
    notes: list[str] = list(reader.notes)
    for done, picture in enumerate(reader.pictures(), 1):
        job.progress(done, 0, "reading the folder")
        notes += [str(bad) for bad in picture.bad]
        if not picture.shapes:
            continue
        data = picture.path.read_bytes()
        try:
            size_wh = image_size(data, settings.image_max_pixels)
        except ImageError as error:
            notes.append(f"{picture.path}: {error}")
            continue
        image = hashlib.sha256(data).hexdigest()
        paths[image], sizes[image] = picture.path, size_wh
        for one in picture.shapes:
            box = ImageBox(image, enclosing_xyxy(one.shape))
            items.append(Item(box, one.label, {"file": picture.path.name, "line": one.line}))
    notes += [str(stray) for stray in reader.strays()]

    def provide(image: str) -> None:
        if image not in store and store.put(paths[image].read_bytes()) != image:
            raise ImageError(f"The picture {paths[image]} changed while it was read.")

    return Dataset(tuple(items), tuple(dict.fromkeys(reader.classes)), sizes, provide, tuple(notes))


def with_background(dataset: Dataset, each: int, seed: int) -> Dataset:
    """The data set with ``each`` crops of empty places a picture, as a class of its own.

    Sizes are those of the labelled boxes; a place overlaps no labelled box by more than a tenth.
    """
    if not each:
        return dataset
    by_image: dict[str, list[Xyxy]] = {}
    for item in dataset.items:
        by_image.setdefault(item.box.image, []).append(item.box.xyxy)
    sizes = [(x1 - x0, y1 - y0) for x0, y0, x1, y1 in (item.box.xyxy for item in dataset.items)]
    empty = []
    for image, boxes in sorted(by_image.items()):
        rng = np.random.default_rng([seed, int(image[:12], 16)])
        empty += [
            Item(ImageBox(image, box), BACKGROUND, {"background": True})
            for box in empty_places(rng, boxes, sizes, dataset.sizes_wh[image], each)
        ]
    return Dataset(
        (*dataset.items, *empty), (*dataset.classes, BACKGROUND), dataset.sizes_wh, dataset.provide, dataset.notes
    )


def empty_places(
    rng: np.random.Generator,
    boxes: Sequence[Xyxy],
    sizes: Sequence[tuple[float, float]],
    size_wh: tuple[int, int],
    count: int,
) -> Iterator[Xyxy]:
    """Up to ``count`` boxes of a picture on which nothing labelled stands; fewer where it is crowded.

    Args:
        rng: places and sizes are drawn from it.
        boxes: that are labelled; each covers at most a tenth of a place, in pixels.
        sizes: widths and heights to draw from, pixels.
        size_wh: of the picture.
        count: how many are wanted.
    """
    found = 0
    for _ in range(20 * count):
        width, height = sizes[int(rng.integers(len(sizes)))]
        if width > size_wh[0] or height > size_wh[1]:
            continue
        x, y = rng.uniform(0, size_wh[0] - width), rng.uniform(0, size_wh[1] - height)
        place = (float(x), float(y), float(x + width), float(y + height))
        if all(_covered(place, box) <= BACKGROUND_OVERLAP for box in boxes):
            found += 1
            yield place
        if found == count:
            return


def _covered(place: Xyxy, box: Xyxy) -> float:
    """The share of a place that a box covers."""
    both = (max(place[0], box[0]), max(place[1], box[1]), min(place[2], box[2]), min(place[3], box[3]))
    return area_xyxy(both) / max(area_xyxy(place), 1e-9)
