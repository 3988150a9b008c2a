"""Where a model's examples come from: the annotations of a project, or a data set in files.

Held out are pictures by their content, whatever split a data set has of its own: so that two models in a row, of
whatever source, are compared on pictures that neither has learned from.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from label_config.reader import read_cached
from tator_ml.images.fetch import ImageFetcher, ImageRef
from tator_ml.images.store import ImageStore
from tator_ml.learning.stores import image_store
from tator_sdk.datasets import DatasetRegistry
from tator_sdk.export import SAME_ASPECT
from tator_sdk.export_source import TaskPicture, chosen_results, task_pictures
from tator_sdk.files import write_durably
from tator_sdk.formats import open_dataset
from tator_sdk.formats.dataset import DatasetReader
from tator_sdk.geometry import Outline, area_xyxy, clip_xyxy
from tator_sdk.images import ImageError, decode_image
from tator_sdk.qwen_request import QwenTraining
from tator_sdk.sam3_request import Sam3Training
from tator_sdk.settings import Settings
from tator_sdk.shapes import scaled
from tator_sdk.studio import labelled_tasks, open_studio, sentences
from training.job import Job
from training.samples import Labelled, Sample, Samples, labelled, split
from training.segmentation.writer import SAM3_FILE

KEPT = "samples.json"
"""In a job's folder: what a project held when its training began, for an attempt that goes on later."""


Source = QwenTraining | Sam3Training
"""A request that says where its examples come from."""


@contextmanager
def open_samples(
    request: Source, settings: Settings, job: Job, keep: bool = True, most_aspect: float | None = None
) -> Iterator[Samples]:
    """The data set that a request names; pictures can be read until the context ends.

    Args:
        request: names it.
        settings: of this installation.
        job: told how far it is, and what was left out.
        keep: write a project's down, so that an attempt that goes on later gets the same.
        most_aspect: of a picture's sides; None for any.

    Raises:
        TatorError: it cannot be read, or there is too little in it.
    """
    if request.project is not None:
        with closing(_Project(request.project, settings)) as project:
            kept = job.folder / KEPT
            found = _unkept(kept, project.read) if keep and kept.exists() else None
            if found is None:
                read = project.samples(job)
                found = split_used(read, project.classes, request, f"project {request.project}", job, (), most_aspect)
                found = replace(found, names=project.names)
                if keep:
                    _keep(kept, found)
            yield found
        return
    path, kind = find_dataset(str(request.dataset), settings)
    with closing(open_dataset(path, kind, images=request.images)) as reader:
        notes: list[str] = list(reader.notes)
        samples = list(_of_files(reader, settings, job, notes))
        for note in notes[:50]:
            job.log(f"left out: {note}")
        yield split_used(samples, reader.classes, request, str(path), job, notes, most_aspect)


def find_dataset(name: str, settings: Settings) -> tuple[Path, str | None]:
    """Path and kind of a data set, by its path or by its name in the registry.

    Raises:
        RegistryError: there is neither.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path, _kind_of_sam3(path)
    record = DatasetRegistry(settings.home).get(name)
    if record.type == "sam3":
        return Path(record.path), _kind_of_sam3(Path(record.path))
    return Path(record.path), record.type.removeprefix("yolo-")


def _kind_of_sam3(path: Path) -> str | None:
    """``coco``, where a set for SAM 3 names its COCO files: outlines keep their parts and holes there."""
    try:
        named = json.loads((path / SAM3_FILE).read_text("utf-8")).get("annotations") or {}
        return "coco" if any((path / str(file)).is_file() for file in named.values()) else None
    except (OSError, ValueError, AttributeError):
        return None


def split_used(
    samples: Iterable[Sample], classes: Sequence[str], request: Source, source: str, job: Job,
    notes: Sequence[str] = (), most_aspect: float | None = None,
) -> Samples:  # fmt: skip
    """Split what was read; a picture that came twice counts once, and a class without any object is not asked for.

    Raises:
        NothingToLearn: there is too little.
    """
    first: dict[str, Sample] = {}
    twice = narrow = 0
    for sample in samples:
        if most_aspect is not None and max(sample.size_wh) > most_aspect * min(sample.size_wh):
            narrow += 1
            continue
        twice += sample.image in first
        first.setdefault(sample.image, sample)
    counts = Counter(one.label for sample in first.values() for one in sample.objects)
    used = [name for name in dict.fromkeys(classes) if counts[name]]
    said = list(notes)
    if twice:
        said.append(f"{twice} pictures are there more than once; the labels of the first ones count")
    if narrow:
        said.append(f"{narrow} pictures are over {most_aspect} times as long as wide, too narrow for the model")
    if missing := [name for name in dict.fromkeys(classes) if not counts[name]]:
        said.append(f"nothing is labelled as {', '.join(missing)}, so that is not learned")
    for note in said[len(notes) :]:
        job.log(note)
    return split(list(first.values()), used, request.val_share, request.seed, source, said)


class _Project:
    """The annotated tasks of a Label Studio project."""

    def __init__(self, project: int, settings: Settings) -> None:
        self._studio: Any = open_studio(settings)
        self._settings = settings
        self._project = project
        self._store: ImageStore = image_store(settings)
        self._fetcher = ImageFetcher(settings, self._store)
        with sentences(settings.label_studio_url):
            about = self._studio.projects.get(project)
        self._interface = read_cached(str(about.label_config or ""))
        self._count = int(about.num_tasks_with_annotations or 0)
        self.classes = self._interface.labels
        labels = [label for control in self._interface.controls for label in control.labels]
        self.names = {label.value: label.predicted_values for label in labels if label.predicted_values}

    def close(self) -> None:
        """Close connections."""
        self._fetcher.close()

    def samples(self, job: Job) -> Iterator[Sample]:
        """Pictures with the regions of the annotation that was changed last; those without any object too."""
        with ThreadPoolExecutor(4) as pool:
            pictures = list(self._pictures(job))
            for done, (picture, found) in enumerate(zip(pictures, pool.map(self._fetch, pictures), strict=True)):
                job.progress(done, len(pictures), "fetching pictures")
                if isinstance(found, ImageError):
                    job.log(f"left out: task {picture.task}: {found}")
                    continue
                objects = tuple(self._objects(picture, found.size_wh, job))
                origin = {"address": picture.address, "task": picture.task}
                yield Sample(found.image, self.read(found.image, origin), found.size_wh, objects, origin)

    def read(self, image: str, origin: dict[str, Any]) -> Callable[[], NDArray[np.uint8]]:
        """What brings the pixels of a picture; it is fetched again where the store has let it go."""

        def read() -> NDArray[np.uint8]:
            data = self._store.get(image)
            if data is None:
                if self._fetcher.fetch(origin["address"], origin["task"]).image != image:
                    raise ImageError(f"The picture {origin['address']} has changed since the training began.")
                data = self._store.get(image)
            return decode_image(data or b"", self._settings.image_max_pixels)

        return read

    def _pictures(self, job: Job) -> Iterator[TaskPicture]:
        tasks = labelled_tasks(self._studio, self._settings.label_studio_url, self._project)
        for done, task in enumerate(tasks, 1):
            job.progress(done, max(self._count, done), "reading annotations")
            results = chosen_results(task.annotations or [], "newest")
            if results:
                yield from task_pictures(int(task.id), task.data or {}, results, self._interface)

    def _fetch(self, picture: TaskPicture) -> ImageRef | ImageError:
        try:
            return self._fetcher.fetch(picture.address, picture.task)
        except ImageError as error:
            return error

    def _objects(self, picture: TaskPicture, size_wh: tuple[int, int], job: Job) -> Iterator[Labelled]:
        for reason in picture.left_out:
            job.log(f"left out: {reason}")
        for region in picture.shapes:
            factors = size_wh[0] / region.size_wh[0], size_wh[1] / region.size_wh[1]
            if abs(factors[0] / factors[1] - 1) > SAME_ASPECT:
                job.log(f"left out: task {picture.task}: region {region.region} was drawn on another picture's size")
                continue
            if (one := _inside(labelled(region.label, scaled(region.shape, factors)), size_wh)) is not None:
                yield one


def _of_files(reader: DatasetReader, settings: Settings, job: Job, notes: list[str]) -> Iterator[Sample]:
    count = len(reader)
    for done, picture in enumerate(reader.pictures(), 1):
        job.progress(done, count, "reading the data set")
        notes += [str(bad) for bad in picture.bad]
        try:
            image = hashlib.sha256(picture.path.read_bytes()).hexdigest()
        except OSError as error:
            notes.append(f"{picture.path} cannot be read ({error.strerror})")
            continue
        found = (_inside(labelled(one.label, one.shape), picture.size_wh) for one in picture.shapes)
        objects = tuple(one for one in found if one is not None)
        yield Sample(image, _reads(picture.path, settings.image_max_pixels), picture.size_wh, objects)
    notes += [str(stray) for stray in reader.strays()]


def _reads(path: Path, max_pixels: int) -> Callable[[], NDArray[np.uint8]]:
    def read() -> NDArray[np.uint8]:
        try:
            return decode_image(path.read_bytes(), max_pixels)
        except OSError as error:
            raise ImageError(f"{path} cannot be read any more ({error.strerror}).") from error

    return read


def _inside(one: Labelled, size_wh: tuple[int, int]) -> Labelled | None:
    """An object cut to its picture; None where nothing of it lies there."""
    box = clip_xyxy(one.box, size_wh)
    if area_xyxy(box) <= 0:
        return None
    point = min(max(one.point[0], box[0]), box[2]), min(max(one.point[1], box[1]), box[3])
    return replace(one, box=box, point=point)


def _keep(path: Path, samples: Samples) -> None:
    """Write down what was read, so that a later attempt learns from the same."""
    rows = [
        {
            "image": sample.image,
            "size_wh": sample.size_wh,
            "objects": [[one.label, one.box, one.point, _rings(one.outline)] for one in sample.objects],
            "origin": sample.origin,
            "held_out": held_out,
        }
        for part, held_out in ((samples.train, False), (samples.held_out, True))
        for sample in part
    ]
    about = {name: getattr(samples, name) for name in ("classes", "source", "notes", "names")} | {"samples": rows}
    write_durably(path, json.dumps(about).encode())


def _unkept(path: Path, read: Callable[[str, dict[str, Any]], Callable[[], NDArray[np.uint8]]]) -> Samples:
    kept = json.loads(path.read_text())
    parts: dict[bool, list[Sample]] = {False: [], True: []}
    for row in kept["samples"]:
        objects = tuple(
            Labelled(label, tuple(box), tuple(point), _outline(rings)) for label, box, point, rings in row["objects"]
        )
        image, origin, (width, height) = row["image"], row["origin"], row["size_wh"]
        parts[row["held_out"]].append(Sample(image, read(image, origin), (width, height), objects, origin))
    names = {name: tuple(found) for name, found in kept["names"].items()}
    classes, notes = tuple(kept["classes"]), tuple(kept["notes"])
    return Samples(tuple(parts[False]), tuple(parts[True]), classes, kept["source"], notes, names)


def _rings(outline: Outline | None) -> list[list[Any]] | None:
    if outline is None:
        return None
    return [[ring.tolist() for ring in rings] for rings in (outline.parts, outline.holes)]


def _outline(rings: list[list[Any]] | None) -> Outline | None:
    if rings is None:
        return None
    parts, holes = (tuple(np.array(ring, np.float64) for ring in some) for some in rings)
    return Outline(parts, holes)
