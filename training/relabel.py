"""The queue of label errors: a project's standing boxes against its active head, the most doubtful offered first.

Two steps, each taken up where a killed attempt left it: everything is checked and what was found written to the
job's folder; then it is pushed as predictions of one model version, which each task has once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Any

from label_config.errors import LabelConfigError
from label_config.reader import read_cached
from tator_ml.images.fetch import ImageFetcher
from tator_ml.learning.embedder import Computes, Embedder
from tator_ml.learning.registry import HeadEntry
from tator_ml.learning.stores import embedding_cache, head_registry, image_store
from tator_ml.quality.doubts import Doubts
from tator_ml.quality.store import quality_store
from tator_sdk.errors import TatorError
from tator_sdk.files import write_json
from tator_sdk.push import PredictionsOfVersion, Pushed
from tator_sdk.requests import Relabel
from tator_sdk.settings import Settings
from tator_sdk.studio import labelled_tasks, open_studio, sentences
from training.job import Job, run_job
from training.judging import Found, Judge
from training.standing import Marked, marked

QUEUE_FILE, REPORT_FILE = "queue.jsonl", "report.json"
CHUNK_TASKS, CHUNK_BOXES = 64, 512  # read, fetched, embedded and judged together; then forgotten


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
    write_json(job.folder / REPORT_FILE, report)
    job.log(
        f"{report['boxes']} boxes in {report['tasks']} tasks checked, {report['disagreements']} doubtful; "
        + ("nothing is pushed" if request.dry_run else f"{pushed.created} predictions pushed")
    )
    return report


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
    partial = job.folder / f"{QUEUE_FILE}.part"
    with ExitStack() as ends:
        if computes is None:
            from training.clip.train import open_encoder  # imports what only training needs

            computes = ends.enter_context(open_encoder(settings, store, None))
        fetcher = ends.enter_context(closing(ImageFetcher(settings, store)))
        cache = ends.enter_context(closing(embedding_cache(settings)))
        file = ends.enter_context(partial.open("wb"))
        head = entry.head()
        embedder = Embedder(
            computes, cache, head.encoder_name, head.recipe, patience_seconds=settings.engine_patience_seconds
        )
        judge = Judge(request, head, interface, config, embedder, fetcher, store, found, file)
        tasks = labelled_tasks(studio, settings.label_studio_url, request.project)
        for chunk in _chunks(marked(task, interface) for task in tasks):
            judge(chunk)
            job.progress(found.tasks, max(total, found.tasks), "checking boxes")
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
