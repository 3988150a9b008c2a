"""The queue of label errors: a project's standing boxes against its active head, the most doubtful offered first.

Two steps, each taken up where a killed attempt left it: everything is checked and what was found written to the
job's folder; then it is pushed as predictions of one model version, which each task has once.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from label_config.errors import LabelConfigError
from label_config.interface import Interface
from label_config.reader import read_cached
from tator_ml.engine.head import Head, write_whole
from tator_ml.images.decode import ImageError
from tator_ml.images.fetch import ImageFetcher
from tator_ml.images.store import ImageStore
from tator_ml.learning.embedder import Computes, Embedder
from tator_ml.learning.embeddings import ImageBox
from tator_ml.learning.registry import HeadEntry
from tator_ml.learning.stores import embedding_cache, head_registry, image_store
from tator_ml.quality.disagreements import Disagreement, disagreements, prediction
from tator_ml.quality.doubts import Doubt, Doubts
from tator_ml.quality.store import quality_store
from tator_sdk.annotations import LabelledBox
from tator_sdk.errors import TatorError
from tator_sdk.push import PredictionsOfVersion, Pushed
from tator_sdk.requests import Relabel
from tator_sdk.settings import Settings
from tator_sdk.studio import labelled_tasks, open_studio, sentences
from training.job import Job, run_job
from training.standing import Marked, marked

QUEUE_FILE, FOUND_FILE, REPORT_FILE = "queue.jsonl", "found.json", "report.json"
CHUNK_TASKS, CHUNK_BOXES = 64, 512  # read, fetched, embedded and judged together; then forgotten
SHOWN = 20  # doubtful boxes in the report
MOST_NOTES = 100


def run(job_id: str, request: dict[str, Any]) -> dict[str, Any]:
    """Check the project of a :class:`Relabel` request, given as JSON values, as a worker's job."""
    return run_job(job_id, lambda job, settings: relabel(Relabel.model_validate(request), settings, job))


def relabel(request: Relabel, settings: Settings, job: Job, computes: Computes | None = None) -> dict[str, Any]:
    """Offer the active head's class for every standing box on which it surely disagrees.

    Args:
        request: which project, and how much.
        settings: of this installation.
        job: takes progress and log; may stop the work; its folder keeps what was found.
        computes: embeds boxes; by default the running engine, else an encoder in this process.

    Returns:
        What was checked, found and pushed, as JSON values; also in ``report.json`` of the job's folder.

    Raises:
        TatorError: in a sentence.
    """
    begun = time.monotonic()
    found = Found.read(job.folder)
    if found is None:  # otherwise an earlier attempt of this job checked it all, with the head that it names
        found = _check(request, settings, job, computes)
    else:
        job.log(f"goes on with what was found before, by head {found.head}")
    chosen = sorted(found.queue)[: request.limit or None]
    pushed = Pushed(0, 0, ())
    if chosen and not request.dry_run:
        pushed = _push(request, settings, job, found, chosen)
    for task in pushed.dropped:
        found.note(f"Label Studio has no prediction of task {task}: {pushed.reasons.get(task, 'it dropped it')}")
    report = {
        "project": request.project,
        "job": job.id,
        "head": found.head,
        "model_version": found.version,
        "dry_run": request.dry_run,
        "tasks": found.tasks,
        "boxes": found.boxes,
        "unknown": found.unknown,
        "unreadable": found.unreadable,
        "disagreements": sum(found.pairs.values()),
        "doubtful_tasks": len(found.queue),
        "offered": len(chosen),
        "pushed": pushed.created,
        "already_there": pushed.there,
        "dropped": len(pushed.dropped),
        "pairs": [{"from": one, "to": other, "count": count} for (one, other), count in found.pairs.most_common()],
        "doubtful": found.doubtful,
        "notes": found.notes,
        "project_shows": found.shows,
        "seconds": round(time.monotonic() - begun, 2),
    }
    write_whole(job.folder / REPORT_FILE, _json(report))
    job.log(
        f"{report['boxes']} boxes in {report['tasks']} tasks checked, {report['disagreements']} doubtful; "
        + ("nothing is pushed" if request.dry_run else f"{pushed.created} predictions pushed")
    )
    return report


@dataclass
class Found:
    """What a check found.

    Attributes:
        head: that judged.
        version: ``model_version`` of what is offered.
        shows: version of predictions that the project shows.
        tasks: tasks with annotations, and in them
        boxes: that the head judged,
        unknown: of classes that the head does not know, and
        unreadable: whose picture could not be had.
        pairs: how often which label was found to be which other.
        doubtful: the most doubtful boxes, most doubtful first.
        notes: what was left out, in sentences.
        queue: for each doubtful task its score, its number, and where in the queue's file its prediction begins.
    """

    head: str
    version: str
    shows: str | None
    tasks: int = 0
    boxes: int = 0
    unknown: int = 0
    unreadable: int = 0
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    doubtful: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    queue: list[tuple[float, int, int]] = field(default_factory=list)

    def note(self, sentence: str) -> None:
        """Keep a sentence, up to as many as anybody reads."""
        if len(self.notes) < MOST_NOTES and sentence not in self.notes:
            self.notes.append(sentence)

    def add(
        self, task: int, boxes: Iterable[tuple[Disagreement, int, str, str | None]], score: float, offset: int
    ) -> None:
        """Count a task's doubtful boxes, each with its annotation, the region's id there, and its picture."""
        self.queue.append((score, task, offset))
        for one, annotation, region, image in boxes:
            self.pairs[one.box.label, one.label] += 1
            about = {"task": task, "annotation": annotation, "region": region, "from": one.box.label, "to": one.label}
            about |= {"image": image, "xyxy": list(one.box.xyxy)}
            self.doubtful.append({**about, "given": round(one.given, 4), "probability": round(one.probability, 4)})
        self.doubtful = sorted(self.doubtful, key=lambda row: (row["given"], -row["probability"]))[:SHOWN]

    def write(self, folder: Path) -> None:
        """Keep it for a later attempt of the job."""
        pairs = [[*pair, count] for pair, count in self.pairs.items()]
        write_whole(folder / FOUND_FILE, _json({**vars(self), "pairs": pairs}))

    @classmethod
    def read(cls, folder: Path) -> Found | None:
        """What an earlier attempt kept, or None."""
        try:
            kept = json.loads((folder / FOUND_FILE).read_text())
        except FileNotFoundError:
            return None
        pairs = Counter({(one, other): count for one, other, count in kept.pop("pairs")})
        queue = [(score, task, offset) for score, task, offset in kept.pop("queue")]
        return cls(**kept, pairs=pairs, queue=queue)


def _check(request: Relabel, settings: Settings, job: Job, computes: Computes | None) -> Found:
    """Judge every standing box, a chunk of tasks at a time."""
    entry = _active(settings, request.project)
    studio: Any = open_studio(settings)
    with sentences(settings.label_studio_url):
        about = studio.projects.get(request.project)
    try:
        config = str(about.label_config or "")
        interface = read_cached(config)
    except LabelConfigError as error:
        raise TatorError(str(error)) from error
    found = Found(entry.version, f"{entry.version}/{job.id}", about.model_version)
    total = int(about.num_tasks_with_annotations or 0)
    store = image_store(settings)
    own = None
    if computes is None:
        from training.clip.train import find_encoder  # imports what only training needs

        computes = own = find_encoder(settings, store, None)
    partial = job.folder / f"{QUEUE_FILE}.part"
    fetcher = ImageFetcher(settings, store)
    try:
        with closing(embedding_cache(settings)) as cache, partial.open("wb") as file:
            head = entry.head()
            embedder = Embedder(
                computes, cache, head.encoder_name, head.recipe, patience_seconds=settings.engine_patience_seconds
            )
            judge = Judge(request, head, interface, config, embedder, fetcher, store, found, file)
            tasks = labelled_tasks(studio, settings.label_studio_url, request.project)
            for chunk in _chunks(marked(task, interface) for task in tasks):
                judge(chunk)
                job.progress(found.tasks, max(total, found.tasks), "checking boxes")
    finally:
        fetcher.close()
        if own is not None and hasattr(own, "close"):
            own.close()
    with closing(quality_store(settings)) as record:
        Doubts(record).replace_all(request.project, judge.doubts)
    partial.replace(job.folder / QUEUE_FILE)
    found.write(job.folder)
    for note in found.notes:
        job.log(note)
    return found


def _active(settings: Settings, project: int) -> HeadEntry:
    entry = head_registry(settings).active(project)
    if entry is None:
        raise TatorError(
            f"Project {project} has no head of its own to check its boxes with: train one with "
            f"`tator train clip --project {project}`."
        )
    return entry


def _chunks(tasks: Iterable[Marked]) -> Iterator[list[Marked]]:
    chunk: list[Marked] = []
    for task in tasks:
        chunk.append(task)
        if len(chunk) == CHUNK_TASKS or sum(len(one.boxes) for one in chunk) >= CHUNK_BOXES:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


class Judge:
    """Judges chunks of tasks, and writes the predictions of doubtful ones to the queue's file.

    Attributes:
        doubts: what was found, for the dashboard's queue.
    """

    def __init__(
        self, request: Relabel, head: Head, interface: Interface, config: str, embedder: Embedder,
        fetcher: ImageFetcher, store: ImageStore, found: Found, file: IO[bytes],
    ) -> None:  # fmt: skip
        from label_studio_sdk.label_interface.interface import LabelInterface  # a second: not for every verb

        self._request = request
        self._head = head
        self._interface = interface
        self._rules: Any = LabelInterface(config)
        self._embedder = embedder
        self._fetcher = fetcher
        self._store = store
        self._found = found
        self._file = file
        self.doubts: list[Doubt] = []

    def __call__(self, chunk: Sequence[Marked]) -> None:
        """Judge the boxes of some tasks.

        Raises:
            TatorError: embeddings cannot be made, or are not those that the head was fitted on.
        """
        images, found = self._fetched(chunk), self._found
        places: dict[str, tuple[str, int]] = {image: place for place, image in images.items()}

        def provide(image: str) -> None:
            if image not in self._store and self._fetcher.fetch(*places[image]).image != image:
                raise ImageError(f"The picture {places[image][0]} changed while it was read.")

        placed: list[tuple[int, LabelledBox, ImageBox]] = []
        for row, task in enumerate(chunk):
            found.tasks += 1
            for box in task.boxes:
                image = images.get((task.address_of(box), task.task))
                if box.label not in self._head.classes:
                    found.unknown += 1
                elif image is None:
                    found.unreadable += 1
                else:
                    placed.append((row, box, ImageBox(image, box.xyxy)))
        if not placed:
            return
        embeddings = self._embedder.embed([where for _, _, where in placed], provide)
        for reason in embeddings.failed.values():
            found.note(reason)
        if embeddings.encoder != self._head.encoder:
            raise TatorError(
                f"Head {self._head.version} was fitted on {self._head.encoder}, which is not here "
                f"({embeddings.encoder} is): train it anew, or check TATOR_ENCODER."
            )
        rows: dict[int, list[int]] = {}
        for index, (row, _, _) in enumerate(placed):
            if embeddings.made[index]:
                rows.setdefault(row, []).append(index)
            else:
                found.unreadable += 1
        for row, indices in rows.items():
            found.boxes += len(indices)
            boxes = [placed[index][1] for index in indices]
            doubts = disagreements(
                self._head, boxes, embeddings.values[indices], chunk[row].results, self._interface,
                self._request.least_probability,
                self._request.most_given,
            )  # fmt: skip
            self._keep(chunk[row], doubts, images)
            shown = {(placed[index][1].region, placed[index][1].label): placed[index][2].image for index in indices}
            for one in doubts:
                annotation, region = chunk[row].origin[one.box.region]
                self.doubts.append(Doubt.of(one, chunk[row].task, annotation, found.head, shown, region))

    def _keep(self, task: Marked, doubts: Sequence[Disagreement], images: Mapping[tuple[str, int], str]) -> None:
        found = self._found
        valid = []
        for one in doubts:
            offered = prediction(task.task, [one], task.results, found.version)
            wrong = self._rules.validate_prediction(offered, return_errors=True)
            if wrong:  # Label Studio would drop the whole task's prediction without a word
                found.note(f"Task {task.task}: a region cannot be offered: {wrong[0]}")
            elif offered["result"]:
                valid.append(one)
        if valid:
            whole = prediction(task.task, valid, task.results, found.version)
            offset = self._file.tell()
            self._file.write(json.dumps(whole).encode() + b"\n")
            rows = (
                (one, *task.origin[one.box.region], images.get((task.address_of(one.box), task.task))) for one in valid
            )
            found.add(task.task, rows, whole["score"], offset)

    def _fetched(self, chunk: Sequence[Marked]) -> dict[tuple[str, int], str]:
        """Content hashes of the pictures that have boxes, by address and task."""
        wanted = {(address, task.task) for task in chunk for box in task.boxes if (address := task.address_of(box))}

        def fetched(place: tuple[str, int]) -> tuple[tuple[str, int], str | ImageError]:
            try:
                return place, self._fetcher.fetch(*place).image
            except ImageError as error:
                return place, error

        images = {}
        with ThreadPoolExecutor(4) as pool:
            for place, image in pool.map(fetched, sorted(wanted)):
                if isinstance(image, ImageError):
                    self._found.note(f"Task {place[1]}: {image}")
                else:
                    images[place] = image
        return images


def _push(
    request: Relabel, settings: Settings, job: Job, found: Found, chosen: Sequence[tuple[float, int, int]]
) -> Pushed:
    """Push the chosen predictions, in their order."""
    offsets = {task: offset for _, task, offset in chosen}
    with (job.folder / QUEUE_FILE).open("rb") as file:

        def prediction_of(task: int) -> dict[str, Any]:
            file.seek(offsets[task])
            return dict(json.loads(file.readline()))

        def before(done: int) -> None:
            job.progress(done, len(chosen), "pushing predictions")
            job.check()

        job.check()
        target = PredictionsOfVersion(settings, request.project, found.version)
        return target.push(list(offsets), prediction_of, before)


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()
