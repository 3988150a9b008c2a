"""The job ``prelabel``: ask about every picture, push what was found as predictions, report.

Each step is taken up where a killed attempt left it: what was asked is in the job's folder, task by task; predictions
are pushed as one model version, which each task has once.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any, Protocol

from label_config.interface import Interface
from tator_ml.engine.routing import open_engines
from tator_ml.images.fetch import ImageFetcher
from tator_ml.learning.stores import head_registry, image_store, project_choices
from tator_ml.words.typed import all_or
from tator_sdk.files import write_durably, write_json
from tator_sdk.push import Pushed
from tator_sdk.requests import Prelabel
from tator_sdk.settings import Settings
from tator_sdk.studio import UNLABELLED
from training.job import Job, run_job
from training.journal import lines_of
from training.prelabel.look import FOUND_FILE, FindsWords, How, Looking, offer_of
from training.prelabel.manners import concept_manners, qwen_manners
from training.selection import selected_tasks
from training.sweep import Fetches, ServesJobs, project_of, push_found

PLAN_FILE, REPORT_FILE = "plan.json", "report.json"
MOST_NOTES = 100


class Engine(FindsWords, ServesJobs, Protocol):
    """What this job needs of an engine."""


def run(job_id: str, request: dict[str, Any]) -> dict[str, Any]:
    """Ask about the pictures of a :class:`Prelabel` request, given as JSON values, as a worker's job."""
    return run_job(job_id, lambda job, settings: prelabel(Prelabel.model_validate(request), settings, job))


def prelabel(
    request: Prelabel, settings: Settings, job: Job, engine: Engine | None = None, fetcher: Fetches | None = None
) -> dict[str, Any]:
    """Offer what a model finds in a project's pictures as predictions.

    Args:
        request: which pictures, and what to find.
        settings: of this installation.
        job: takes progress and log; may stop the work; its folder keeps what was found.
        engine: by default the running one.
        fetcher: of pictures; by default one over the settings' store.

    Returns:
        What was asked, found and pushed, as JSON values; also in ``report.json`` of the job's folder.

    Raises:
        TatorError: in a sentence.
    """
    begun = time.monotonic()
    with ExitStack() as ends:
        store = image_store(settings)
        engine = engine or ends.enter_context(closing(open_engines(settings, store, head_registry(settings).files)))
        fetcher = fetcher or ends.enter_context(closing(ImageFetcher(settings, store)))
        return _prelabel(request, settings, job, engine, fetcher, begun)


def _prelabel(
    request: Prelabel, settings: Settings, job: Job, engine: Engine, fetcher: Fetches, begun: float
) -> dict[str, Any]:
    studio, about, interface = project_of(settings, request.project)
    request = request.model_copy(update={"prompt": all_or(request.prompt, interface.labels)})
    how = _how(request, settings, job, engine, interface)
    looking = Looking(how, job, engine, fetcher, settings.engine_patience_seconds)
    query = None if request.labelled else UNLABELLED
    looking.look(
        lambda: selected_tasks(studio, settings.label_studio_url, request.project, request.view, request.tasks, query)
    )
    path = job.folder / FOUND_FILE
    found = _counted(line for _, line in lines_of(path))
    pushed = Pushed(0, 0, ())
    if not request.dry_run:
        pushed = push_found(settings, request.project, how.version, job, path, offer_of)
    found["notes"] += [
        f"Label Studio has no prediction of task {task}: {pushed.reasons.get(task, 'it dropped it')}."
        for task in pushed.dropped
    ]
    report = {
        "project": request.project,
        "job": job.id,
        "prompt": request.prompt,
        "model": how.manners[0].model_name,
        "mode": how.manners[0].depends["mode"],
        "model_version": how.version,
        "dry_run": request.dry_run,
        **found,
        "pushed": pushed.created,
        "already_there": pushed.there,
        "dropped": len(pushed.dropped),
        "project_shows": about.model_version,
        "seconds": round(time.monotonic() - begun, 2),
    }
    write_json(job.folder / REPORT_FILE, report)
    for note in report["notes"]:
        job.log(note)
    did = "nothing is pushed" if request.dry_run else f"{pushed.created} predictions pushed"
    job.log(f"{report['objects']} objects in {report['offered_tasks']} of {report['tasks']} tasks; {did}")
    return report


def _how(request: Prelabel, settings: Settings, job: Job, engine: Engine, interface: Interface) -> How:
    """Model, options and model version, decided once: a later attempt of the job goes on with the same."""
    path = job.folder / PLAN_FILE
    plan = json.loads(path.read_text()) if path.exists() else None
    choices = project_choices(settings).get(request.project)
    if plan:
        choices = replace(choices, segmenter=plan["segmenter"], head=plan["head"])
    elif request.segmenter:
        choices = replace(choices, segmenter=request.segmenter)
    model = plan["model"] if plan else request.model
    asked = concept_manners if request.by == "sam3" else qwen_manners
    manners = asked(request, settings, interface, choices, model)
    if plan is None:
        version = f"{manners[0].version(engine)}/{job.id}"
        plan = {
            "model": manners[0].model_id,
            "segmenter": choices.clicks_by,
            "head": choices.head,
            "version": version,
        }
        write_durably(path, json.dumps(plan).encode())
    return How(request, manners, plan["version"], choices.comparison)


def _counted(lines: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What a journal says, whoever wrote it and when."""
    counts: Counter[str] = Counter()
    unmatched: Counter[str] = Counter()
    notes: dict[str, None] = {}
    sums: Counter[str] = Counter()
    for line in lines:
        counts.update(line["counts"])
        unmatched.update(line["unmatched"])
        notes |= dict.fromkeys(line["notes"])
        sums.update(tasks=1, offered=int(line["offer"] is not None), unreadable=line["unreadable"], cut=line["cut"])
        sums.update(tokens=line["tokens"], garbled=line["garbled"], more=line.get("more", 0))
    return {
        "tasks": sums["tasks"],
        "objects": counts.total(),
        "offered_tasks": sums["offered"],
        "counts": dict(counts.most_common()),
        "unmatched": dict(unmatched.most_common(MOST_NOTES)),
        "unreadable": sums["unreadable"],
        "cut": sums["cut"],
        "garbled": sums["garbled"],
        "more": sums["more"],
        "tokens": sums["tokens"],
        "notes": list(notes)[:MOST_NOTES],
    }
