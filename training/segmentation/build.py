"""The segmentation builder: boxes → polygons, each picture once, whoever dies and however many share the work.

Each shard segments its pictures and keeps what it made under the picture's key (`results`). Whichever shard ends
last writes the data set and pushes it: that step looks at every picture again, so what a shard missed, because
somebody labelled meanwhile, is made there.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tator_ml.engine.masks import SegmentAsk, Segmented
from tator_ml.engine.routing import open_engines
from tator_ml.images.store import ImageStore
from tator_ml.jobs.connection import connect_patiently
from tator_ml.learning.stores import image_store, project_choices
from tator_sdk.datasets import DatasetRegistry
from tator_sdk.errors import TatorError
from tator_sdk.formats.dataset import LabelledPicture, LabelledShape
from tator_sdk.held_out import held_out_share
from tator_sdk.images import ImageError
from tator_sdk.push import PredictionsOfVersion
from tator_sdk.requests import SegmentationBuild
from tator_sdk.settings import Settings
from training.job import Job, run_job
from training.segmentation.offers import output_of, prediction_of, regions_of
from training.segmentation.results import LocalResults, Results, SharedResults
from training.segmentation.source import Project, Source, SourcePicture, open_source
from training.segmentation.trace import Segments, Traced, patiently, trace
from training.segmentation.writer import SegmentationWriter, made_by

PICTURES_A_PLACE = 2  # while one is at the engine, the outlines of the one before it are traced
MOST_NOTES = 100
SHOWN = 20  # kept boxes in the report; the data set lists all


def run(job_id: str, request: dict[str, Any]) -> dict[str, Any]:
    """Do the shard of a :class:`SegmentationBuild` request, given as JSON values, as a worker's job."""
    settings = Settings()
    with connect_patiently(settings) as connection:

        def work(job: Job, settings: Settings) -> dict[str, Any]:
            asked = SegmentationBuild.model_validate(request)
            return build(asked, settings, job, results=SharedResults(connection, asked.build))

        return run_job(job_id, work)


def build(
    request: SegmentationBuild,
    settings: Settings,
    job: Job,
    engine: Segments | None = None,
    results: Results | None = None,
) -> dict[str, Any]:
    """Do a shard, and the finishing step where it falls to this job.

    Args:
        request: the source, what is wanted, and which part of it.
        settings: of this installation.
        job: takes progress and log; may stop the work.
        engine: segments; by default the running one.
        results: shared by all shards; by default a file in the job's folder.

    Returns:
        What was done, as JSON values; ``finished`` says whether the data set is complete.

    Raises:
        TatorError: in a sentence.
    """
    begun = time.monotonic()
    results = LocalResults(job.folder) if results is None else results
    output = output_folder(request, settings)
    if made_by(output, request.build):
        if (before := results.report()) is not None:
            return before
        if results.empty():
            raise TatorError(
                f"{output} is there already, made by the same build; choose another --output to repeat it."
            )
    store = image_store(settings)
    with ExitStack() as ends:
        source = ends.enter_context(closing(open_source(request, settings, store)))
        _refuse(request, source, output)
        engine = engine or ends.enter_context(closing(open_engines(settings, store)))
        work = _Work(request, settings, job, source, store, engine, results)
        made = work.shard()
        report: dict[str, Any] = {"build": request.build, "shard": request.shard, "shards": request.shards, **made}
        report["finished"] = False
        if results.end_shard(request.shard, request.shards):
            if made_by(output, request.build) and (before := results.report()) is not None:
                return before
            if results.claim_finish(job.id):
                report |= work.finish(output)
                report["finished"] = True
    report |= {"seconds": round(time.monotonic() - begun, 2), "host": socket.gethostname()}
    if report["finished"]:
        job.check()
        results.end(report)
    return report


def output_folder(request: SegmentationBuild, settings: Settings) -> Path:
    """Where a request's data set goes."""
    if request.output is not None:
        return request.output
    ending = "_obb" if request.oriented else "_seg"
    if request.path is not None:
        path = request.path.absolute()
        return path.with_name((path.stem if path.is_file() else path.name) + ending)
    return settings.home / "polygons" / f"project-{request.project}{ending}"


def _refuse(request: SegmentationBuild, source: Source, output: Path) -> None:
    """Fail before any work where the end cannot be reached.

    Raises:
        TatorError: there are no classes, something lies at the output, or the project cannot take the result.
    """
    if not source.classes:
        raise TatorError("The source names no classes: neither its metadata nor a label map has one.")
    if (
        output.exists()
        and any(output.iterdir() if output.is_dir() else [output])
        and not made_by(output, request.build)
    ):
        raise TatorError(f"There is something at {output} already; choose another --output.")
    if request.path is not None and output.absolute().is_relative_to(request.path.absolute()):
        raise TatorError("The output lies within the source, which is never changed; choose another --output.")
    if request.push and isinstance(source, Project):
        for image in source.interface.images:
            output_of(source.interface, image.name, request.oriented)


@dataclass
class Tally:
    """What the finishing step counted.

    Attributes:
        pictures: in the data set, and their objects:
        objects: in all,
        masks: made from a mask,
        drawn: kept as outlines that were drawn,
        kept: boxes kept for want of a usable mask; ``reasons`` has why, ``shown`` the first of them.
        unreadable: pictures that could not be had.
        vertices: corners of each polygon that was made from a mask.
        notes: what was left out, in sentences.
    """

    pictures: int = 0
    objects: int = 0
    masks: int = 0
    drawn: int = 0
    kept: int = 0
    unreadable: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    shown: list[dict[str, Any]] = field(default_factory=list)
    vertices: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def note(self, sentence: str) -> None:
        """Keep a sentence, up to as many as anybody reads."""
        if len(self.notes) < MOST_NOTES and sentence not in self.notes:
            self.notes.append(sentence)

    def report(self) -> dict[str, Any]:
        """As JSON values, with the median of the vertices."""
        about = {**asdict(self), "reasons": dict(self.reasons)}
        about["vertices"] = sum(self.vertices)
        about["median_vertices"] = float(np.median(self.vertices)) if self.vertices else 0.0
        return about


class _Places:
    """An engine at which only so many pictures are at once, while others are fetched or traced."""

    def __init__(self, engine: Segments, places: int) -> None:
        self._engine = engine
        self._places = threading.Semaphore(places)

    def segment(self, ask: SegmentAsk) -> Segmented:
        """See :class:`Segments`."""
        with self._places:
            return self._engine.segment(ask)

    def segmenter_version(self, name: str | None = None) -> str:
        """See :class:`Segments`."""
        return self._engine.segmenter_version(name)


class _Work:
    """One job's part of a build."""

    def __init__(
        self,
        request: SegmentationBuild,
        settings: Settings,
        job: Job,
        source: Source,
        store: ImageStore,
        engine: Segments,
        results: Results,
    ) -> None:
        self._request = request
        self._settings = settings
        self._job = job
        self._source = source
        self._store = store
        self._engine = _Places(engine, settings.seg_builder_workers_per_device)
        self._results = results
        name = request.segmenter
        if name is None and request.project is not None:
            name = project_choices(settings).get(request.project).clicks_by
        self._segmenter = name
        self._version = ""
        # of this attempt only: a picture's server that was away for a moment is asked again by the next one
        self._unreadable: dict[str, dict[str, Any]] = {}

    def shard(self) -> dict[str, int]:
        """Segment the shard's pictures, a bounded number at once."""
        request, job = self._request, self._job
        counts = Counter(segmented=0, there=0, unreadable=0)
        done, total = 0, max(self._source.count() // request.shards, 1)
        running: set[Future[dict[str, Any]]] = set()
        at_once = PICTURES_A_PLACE * self._settings.seg_builder_workers_per_device
        pool = ThreadPoolExecutor(at_once, thread_name_prefix="tator-polygons")

        def collect(most: int) -> None:
            nonlocal done
            while len(running) > most:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    running.discard(future)
                    result = future.result()
                    done += 1
                    counts["unreadable" if "unreadable" in result else "segmented"] += 1
                job.progress(done, max(total, done), "segmenting pictures")

        try:
            for picture in self._source.pictures(request.shard, request.shards):
                if picture.key in self._results:
                    counts["there"] += 1
                    done += 1
                    job.progress(done, max(total, done), "segmenting pictures")
                    continue
                collect(at_once)
                running.add(pool.submit(self._result, picture))
            collect(0)
        finally:
            pool.shutdown(cancel_futures=True)
        job.check()
        job.log(f"{counts['segmented']} pictures segmented, {counts['there']} were done before")
        return dict(counts)

    def _result(self, picture: SourcePicture) -> dict[str, Any]:
        """What is made of a picture, made now unless it was before."""
        kept = self._results.get(picture.key) or self._unreadable.get(picture.key)
        if kept is not None:
            return kept
        try:
            image = self._source.image(picture)
            made = trace(self._engine, self._request, self._segmenter, image, picture.drawn)
        except ImageError as error:
            self._unreadable[picture.key] = {"unreadable": str(error)}
            return self._unreadable[picture.key]
        result: dict[str, Any] = {"image": image, "made": [one.dump() for one in made]}
        self._results.put(picture.key, result)
        return result

    def finish(self, output: Path) -> dict[str, Any]:
        """Write the data set and push it; each of the two only once."""
        request, tally = self._request, Tally()
        self._unreadable.clear()  # … and once more before the data set is written without it
        self._version = str(patiently(lambda: self._engine.segmenter_version(self._segmenter)))
        version = f"{self._version}/{request.build}"
        about: dict[str, Any] = {"output": str(output), "segmenter": self._version, "pushed": 0, "already_there": 0}
        if made_by(output, request.build):  # by an attempt that was killed between this and its report
            for picture, result in self._all(tally):
                self._count(picture, result, tally, None)
        else:
            source = {
                "project": request.project,
                "path": request.path and str(request.path),
                "segmenter": self._version,
            }
            writer = SegmentationWriter(
                output, self._source.classes, request.build, oriented=request.oriented, images=request.images,
                source=source,
            )  # fmt: skip
            with writer:
                for picture, result in self._all(tally):
                    self._add(writer, picture, result, tally)
                if not tally.pictures:
                    first = f": {tally.notes[0]}" if tally.notes else ""
                    raise TatorError(f"There is no picture to make a data set of{first or '; label some boxes first.'}")
                self._job.check()  # whoever lost the job must not make the folder appear
            about["splits"] = writer.written.pictures
            for sentence in writer.written.notes:
                tally.note(sentence)
        for sentence in self._source.notes:
            tally.note(sentence)
        if request.push and isinstance(self._source, Project):
            about |= self._push(version, self._source, tally)
        self._job.check()
        record = DatasetRegistry(self._settings.home).register(
            output, progress=lambda done, total: self._job.progress(done, total, "registering the data set")
        )
        about["dataset"] = record.id
        for sentence in tally.notes:
            self._job.log(sentence)
        said = f"{tally.pictures} pictures, {tally.masks} masks, {tally.kept} boxes kept"
        self._job.log(f"{said}; the data set is {output}")
        return {**about, "model_version": version, **tally.report()}

    def _all(self, tally: Tally) -> Iterator[tuple[SourcePicture, dict[str, Any]]]:
        total = self._source.count()
        for done, picture in enumerate(self._source.pictures(), 1):
            result = self._result(picture)
            self._job.progress(done, max(total, done), "writing the data set")
            if "unreadable" in result:
                tally.unreadable += 1
                tally.note(f"{picture.name}: {result['unreadable']}")
            else:
                yield picture, result

    def _count(
        self, picture: SourcePicture, result: dict[str, Any], tally: Tally, writer: SegmentationWriter | None
    ) -> list[Traced]:
        made = [Traced.load(one) for one in result["made"]]
        tally.pictures += 1
        for one in made:
            tally.objects += 1
            if one.kept:
                box = picture.drawn[one.drawn]
                tally.kept += 1
                tally.reasons[one.kept.split(",")[0].rstrip("0123456789. ")] += 1
                if len(tally.shown) < SHOWN:
                    tally.shown.append({"picture": picture.name, "label": box.label, "why": one.kept})
                if writer is not None:
                    writer.kept(picture.name, box.label, box.xyxy, one.kept)
            elif one.quality is None:
                tally.drawn += 1
            else:
                tally.masks += 1
                tally.vertices.append(one.vertices)
        return made

    def _add(self, writer: SegmentationWriter, picture: SourcePicture, result: dict[str, Any], tally: Tally) -> None:
        made = self._count(picture, result, tally, writer)
        split = picture.split
        if not split:
            split = "val" if held_out_share(result["image"], self._request.seed) < self._request.val_share else "train"
        shapes = tuple(LabelledShape(picture.drawn[one.drawn].label, one.shape) for one in made)
        path = picture.path or Path(picture.name)
        data = None
        if picture.path is None:
            data = self._store.get(result["image"])
            if data is None:  # another host fetched it, or the store was pruned
                data = self._store.get(self._source.image(picture))
            if data is None:
                raise TatorError("The store of pictures is too small for one; raise TATOR_IMAGE_STORE_BYTES.")
        writer.add(LabelledPicture(path, picture.name, picture.size_wh, shapes, split), data)

    def _push(self, version: str, source: Project, tally: Tally) -> dict[str, Any]:
        """Each task's prediction exactly once; made a task at a time, so that memory does not grow with the project."""
        places: dict[int, list[SourcePicture]] = {}
        for picture in source.pictures():
            places.setdefault(picture.task, []).append(picture)

        def predicted(task: int) -> dict[str, Any]:
            regions = []
            for picture in places[task]:
                made = [Traced.load(one) for one in self._result(picture).get("made", ())]
                regions += regions_of(picture, made, source.interface, self._request.oriented)
            return prediction_of(task, regions, version)

        def before(done: int) -> None:
            self._job.progress(done, len(places), "pushing predictions")
            self._job.check()

        self._job.check()
        target = PredictionsOfVersion(self._settings, self._request.project or 0, version)
        pushed = target.push(list(places), predicted, before)
        for task in pushed.dropped[:MOST_NOTES]:
            tally.note(f"Task {task} has no prediction: {pushed.reasons.get(task, 'Label Studio does not keep it')}.")
        return {"pushed": pushed.created, "already_there": pushed.there, "dropped": len(pushed.dropped)}
