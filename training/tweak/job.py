"""The job ``tweak``: look at every box, then push what was found or write it into the annotations, then report.

Each step is taken up where a killed attempt left it: what was looked at is in the job's folder, task by task;
predictions are pushed as one model version, which each task has once; annotations are changed by a record that is
on the disk before they are.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from typing import Any, Protocol

from label_config.interface import Interface
from tator_ml.engine.routing import open_engines
from tator_ml.images.fetch import ImageFetcher
from tator_ml.images.store import ImageStore
from tator_ml.learning.stores import head_registry, image_store, project_choices
from tator_ml.prompts.asking import AnswersAsks
from tator_ml.prompts.standing import class_named
from tator_sdk.files import write_durably, write_json
from tator_sdk.push import Pushed
from tator_sdk.requests import Tweak
from tator_sdk.rewriting import Annotations
from tator_sdk.settings import Settings
from training.job import Job, run_job
from training.journal import lines_of
from training.selection import selected_tasks
from training.sweep import Fetches, ServesJobs, project_of, push_found
from training.tweak.apply import Written, apply
from training.tweak.look import FOUND_FILE, How, Looking, offer_of
from training.tweak.pictures import draw_sheet
from training.tweak.report import Report

PLAN_FILE, REPORT_FILE = "plan.json", "report.json"


class Engine(AnswersAsks, ServesJobs, Protocol):
    """What this job needs of an engine."""


def run(job_id: str, request: dict[str, Any]) -> dict[str, Any]:
    """Tighten the boxes of a :class:`Tweak` request, given as JSON values, as a worker's job."""
    return run_job(job_id, lambda job, settings: tweak(Tweak.model_validate(request), settings, job))


def tweak(
    request: Tweak, settings: Settings, job: Job, engine: Engine | None = None, fetcher: Fetches | None = None
) -> dict[str, Any]:
    """Tighten standing boxes: as predictions beside the annotations, or in them.

    Args:
        request: which boxes, and how.
        settings: of this installation.
        job: takes progress and log; may stop the work; its folder keeps what was found and what was changed.
        engine: by default the running one.
        fetcher: of pictures; by default one over the settings' store.

    Returns:
        What was looked at, found, pushed or changed, as JSON values; also in ``report.json`` of the job's folder.

    Raises:
        TatorError: in a sentence.
    """
    begun = time.monotonic()
    with ExitStack() as ends:
        store = image_store(settings)
        engine = engine or ends.enter_context(closing(open_engines(settings, store, head_registry(settings).files)))
        fetcher = fetcher or ends.enter_context(closing(ImageFetcher(settings, store)))
        return _tweak(request, settings, job, engine, fetcher, store, begun)


def _tweak(
    request: Tweak, settings: Settings, job: Job, engine: Engine, fetcher: Fetches, store: ImageStore, begun: float
) -> dict[str, Any]:
    studio, about, interface = project_of(settings, request.project)
    plan = _plan(request, settings, job, engine, interface)
    how = How(request, interface, plan["classes"], plan["segmenter"], plan["head"], plan["version"])
    looking = Looking(how, job, engine, fetcher, settings.engine_patience_seconds)
    looking.look(
        lambda: selected_tasks(studio, settings.label_studio_url, request.project, request.view, request.tasks)
    )
    found = Report.of((line for _, line in lines_of(job.folder / FOUND_FILE)), request.pictures)
    pushed, written = Pushed(0, 0, ()), Written()
    if request.in_place and not request.dry_run:
        with Annotations(settings) as annotations:
            written = apply(job, annotations)
    elif not request.dry_run:
        pushed = push_found(settings, request.project, plan["version"], job, job.folder / FOUND_FILE, offer_of)
    for task in pushed.dropped:
        found.note(f"Label Studio does not keep the prediction of task {task}.")
    for one in written.skipped:
        found.note(f"Annotation {one['annotation']} of task {one['task']} is left as it is: {one['why']}.")
    sheet = None
    if request.pictures:
        sheet = draw_sheet(found.moved_most[: request.pictures], store, settings.image_max_pixels, job.folder)
    report = {
        "project": request.project,
        "job": job.id,
        "model_version": plan["version"],
        "in_place": request.in_place,
        "dry_run": request.dry_run,
        **found.as_json(),
        **_effect(pushed, written),
        "offered_tasks": sum(offer_of(line) is not None for _, line in lines_of(job.folder / FOUND_FILE)),
        "sheet": str(sheet) if sheet else None,
        "project_shows": about.model_version,
        "seconds": round(time.monotonic() - begun, 2),
    }
    write_json(job.folder / REPORT_FILE, report)
    for note in found.notes:
        job.log(note)
    job.log(_summary(report))
    return report


def _effect(pushed: Pushed, written: Written) -> dict[str, Any]:
    return {
        "pushed": pushed.created,
        "already_there": pushed.there,
        "dropped": len(pushed.dropped),
        "changed": written.changed,
        "changed_before": written.there,
        "skipped": written.skipped,
    }


def _plan(request: Tweak, settings: Settings, job: Job, engine: Engine, interface: Interface) -> dict[str, Any]:
    """Classes, segmenter, head and model version, decided once: a later attempt of the job goes on with the same."""
    path = job.folder / PLAN_FILE
    if path.exists():
        return dict(json.loads(path.read_text()))
    classes = list(request.classes)
    if not any(control.labels_key for control in interface.controls):  # else a task's data has further classes
        classes = [class_named(name, interface.labels) for name in classes]
    choices = project_choices(settings).get(request.project)
    segmenter, head = request.segmenter or choices.clicks_by, choices.head if request.classify else None
    version = engine.segmenter_version(segmenter)
    if request.classify:
        version = engine.status().version_with(head, segmenter)
    plan = {"segmenter": segmenter, "head": head, "version": f"{version}/{job.id}", "classes": classes}
    write_durably(path, json.dumps(plan).encode())
    return plan


def _summary(report: Mapping[str, Any]) -> str:
    said = f"{report['boxes']} boxes in {report['tasks']} tasks: {report['moved']} move, {report['kept']} kept"
    if report["dry_run"]:
        return f"{said}; nothing is changed"
    if report["in_place"]:
        return f"{said}; {report['changed']} annotations changed, {len(report['skipped'])} left as they are"
    return f"{said}; {report['pushed']} predictions pushed"
