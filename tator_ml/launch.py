"""From a request to its jobs: kind, title, unique name, time limit and shards; for commands, pages and webhooks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from tator_ml import jobs
from tator_ml.jobs.connection import living_workers, reached
from tator_ml.jobs.queue import DEFAULT_TIMEOUT_SECONDS
from tator_sdk.data_requests import DataExport, Registration, Undo
from tator_sdk.errors import TatorError
from tator_sdk.qwen_request import QwenTraining
from tator_sdk.requests import (
    DataImport,
    HeadTraining,
    JobRequest,
    Prelabel,
    QualityReading,
    Relabel,
    SegmentationBuild,
    Tweak,
    WarmUp,
)
from tator_sdk.sam3_request import Sam3Training
from tator_sdk.settings import Settings

HOUR_SECONDS = 3600
A_NIGHT_SECONDS = 24 * HOUR_SECONDS
DAYS_SECONDS = 3 * A_NIGHT_SECONDS
A_WEEK_SECONDS = 7 * A_NIGHT_SECONDS
MOST_SHARDS = 256
MOST_JOBS = 10_000
"""More than the history keeps, with what is open."""


class LaunchError(TatorError):
    """A job cannot be started as it was asked for; the message says what to do."""


@dataclass(frozen=True)
class JobKind:
    """A kind of job that requests of one model become.

    Attributes:
        kind: of the jobs.
        model: of the requests.
        title: of a job, for people.
        unique: name under which one job runs and one waits.
        timeout_seconds: of one attempt.
        alone: whether a request with other settings is refused as long as a job of the name is open; otherwise it is
            done once the one that runs has ended.
        shards: into how many parts a request is cut that leaves it open, given the settings and the living workers.
    """

    kind: str
    model: type[JobRequest]
    title: Callable[[Any], str]
    unique: Callable[[Any], str]
    timeout_seconds: int = A_NIGHT_SECONDS
    alone: bool = False
    shards: Callable[[Settings, int], int] | None = None


def launch(
    settings: Settings, request: JobRequest, *, shards: int = 0, any_that_waits: bool = False
) -> list[jobs.JobRecord]:
    """Start what a request asks for.

    Args:
        settings: of this installation.
        request: of one of the models in `JOB_KINDS`.
        shards: parts to cut it into, whatever the request says; 0: as it says, or where it leaves that open, one for
            each worker that lives.
        any_that_waits: a job of the same name that waits with other settings is as good; otherwise it is refused.

    Returns:
        The jobs, one for each shard. Where one of the name runs, it is returned, and the request's own follows when
        that has ended; see `is_for`.

    Raises:
        LaunchError: a job with other settings stands in the way.
        JobError: Redis does not answer.
    """
    how, request = kind_of(request), at_its_place(request)
    if how.alone:
        _refuse_beside_others(settings, how, request)
    return [_start(settings, how, part, any_that_waits) for part in _parts(settings, how, request, shards)]


def preview(settings: Settings, request: JobRequest) -> jobs.JobRecord:
    """Have a worker count what a training's request would learn from.

    Raises:
        LaunchError: it is no request of a training.
        JobError: Redis does not answer.
    """
    how, request = kind_of(request), at_its_place(request)
    asked = {"kind": how.kind, "request": request.model_dump(mode="json")}
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]
    title, project = f"look before: {how.title(request)}", getattr(request, "project", None)
    return jobs.start(settings, "preview", asked, project=project, title=title, unique=f"preview:{digest}")


def is_for(record: jobs.JobRecord, request: JobRequest) -> bool:
    """Whether a job does what a request asks for, or a part of it."""
    whole = {"shard": 0, "shards": 1}
    given = at_its_place(request).model_dump(mode="json")
    return bool({**record.request, **whole} == {**given, **whole})


def request_of(record: jobs.JobRecord) -> JobRequest:
    """The request behind a job, whole where the job is one shard of it.

    Raises:
        LaunchError: its kind takes none, or it was written by another version of Tator.
    """
    how = next((one for one in JOB_KINDS if one.kind == record.kind), None)
    if how is None:
        raise LaunchError(f"A job of the kind {record.kind} cannot be asked for with other settings.")
    given = dict(record.request)
    if "shard" in how.model.model_fields:
        given["shard"] = 0
    return _asked_by(record, how, given)


def looked_at(record: jobs.JobRecord) -> JobRequest:
    """The training's request that a look before it (:func:`preview`) was about.

    Raises:
        LaunchError: it was written by another version of Tator.
    """
    how = next(one for one in JOB_KINDS if one.kind == record.request["kind"])
    return _asked_by(record, how, record.request["request"])


def open_jobs(settings: Settings, project: int | None = None) -> list[jobs.JobRecord]:
    """Jobs that wait or run, of one project or of all; the newest first.

    Raises:
        JobError: Redis does not answer.
    """
    with reached(settings) as connection:
        return [one for one in jobs.JobRecords(connection).list(project, MOST_JOBS) if not one.over]


def kind_of(request: JobRequest) -> JobKind:
    """The kind of job that does what a request asks for.

    Raises:
        LaunchError: it never does.
    """
    how = next((one for one in JOB_KINDS if type(request) is one.model), None)
    if how is None:
        raise LaunchError(f"No job does what a {type(request).__name__} asks for.")
    return how


def at_its_place(request: JobRequest) -> JobRequest:
    """The request with paths that mean the same to a worker, which stands in another folder."""
    changes: dict[str, Any] = {}
    for name in {"dataset", "base"} & set(type(request).model_fields):
        given = getattr(request, name)
        path = Path(given).expanduser() if given else None
        if path is not None and (path.is_dir() or (name == "dataset" and path.exists())):
            changes[name] = str(path.absolute())
    return request.model_copy(update=changes) if changes else request


def _parts(settings: Settings, how: JobKind, request: JobRequest, shards: int) -> list[JobRequest]:
    if how.shards is None:
        return [request]
    if not shards and (shards := cast(Any, request).shards) == 1:
        with reached(settings) as connection:
            shards = max(1, min(how.shards(settings, living_workers(connection)), MOST_SHARDS))
    return [request.model_copy(update={"shard": shard, "shards": shards}) for shard in range(shards)]


def _start(settings: Settings, how: JobKind, request: JobRequest, any_that_waits: bool) -> jobs.JobRecord:
    wanted = request.model_dump(mode="json")
    record = jobs.start(
        settings, how.kind, wanted, project=getattr(request, "project", None), title=how.title(request),
        unique=how.unique(request), timeout_seconds=how.timeout_seconds,
    )  # fmt: skip
    waits = record.status == "queued" and not record.attempt
    if waits and record.request != wanted and not any_that_waits:
        raise LaunchError(
            f"{record.id} with other settings waits already; `tator jobs cancel {record.id}` removes it, then start "
            "yours again."
        )
    return record


def _refuse_beside_others(settings: Settings, how: JobKind, request: JobRequest) -> None:
    wanted, unique = request.model_dump(mode="json"), how.unique(request)
    for one in open_jobs(settings, getattr(request, "project", None)):
        if one.kind == how.kind and one.request != wanted and _name_of(how, one) == unique:
            raise LaunchError(
                f"{one.id} with other settings is not over; `tator jobs cancel {one.id}` ends it, then start yours "
                "again."
            )


def _asked_by(record: jobs.JobRecord, how: JobKind, given: Any) -> JobRequest:
    try:
        return how.model.model_validate(given)
    except ValidationError as error:
        raise LaunchError(
            f"{record.id} was asked for by another version of Tator, which had other settings; start it anew."
        ) from error


def _name_of(how: JobKind, record: jobs.JobRecord) -> str | None:
    try:
        return how.unique(how.model.model_validate(record.request))
    except ValidationError:
        return None


def _source(request: Any) -> str:
    """What examples come from, for people."""
    if request.project is not None:
        return f"of project {request.project}"
    return f"on {Path(str(getattr(request, 'dataset', None) or request.images_path)).name}"


def _of_project(kind: str) -> Callable[[Any], str]:
    return lambda request: f"{kind}:{request.project}"


def _dry(request: Any) -> str:
    return ", dry run" if request.dry_run else ""


def _part(request: Any) -> str:
    return f", part {request.shard + 1} of {request.shards}" if request.shards > 1 else ""


def _of_output(request: DataExport) -> str:
    return f"export:{request.project}:{request.output}"


def _builders(settings: Settings, living: int) -> int:
    return min(living, settings.seg_builder_max_workers or living)


def _polygons_of(request: SegmentationBuild) -> str:
    source = f"project {request.project}" if request.project is not None else str(request.path)
    return f"polygons of {source}{_part(request)}"


JOB_KINDS: tuple[JobKind, ...] = (
    JobKind(
        "clip", HeadTraining,
        lambda request: f"class head {_source(request)}",
        lambda request: f"clip:{request.project or request.images_path}",
        DEFAULT_TIMEOUT_SECONDS,
    ),
    JobKind(
        "qwen", QwenTraining,
        lambda request: f"tune the Qwen {_source(request)}",
        lambda request: f"qwen:{request.project or request.dataset}",
        A_WEEK_SECONDS, alone=True,
    ),
    JobKind(
        "sam3", Sam3Training,
        lambda request: f"tune the SAM 3 {_source(request)}",
        lambda request: f"sam3:{request.project or request.dataset}",
        A_WEEK_SECONDS, alone=True,
    ),
    JobKind("relabel", Relabel, lambda one: f"classes of project {one.project}{_dry(one)}", _of_project("relabel")),
    JobKind("quality", QualityReading, lambda one: f"quality of project {one.project}", _of_project("quality")),
    JobKind("tweak", Tweak, lambda one: f"boxes of project {one.project}{_dry(one)}", _of_project("tweak")),
    JobKind(
        "prelabel", Prelabel,
        lambda one: f"'{one.prompt[:40] or 'all classes'}' in project {one.project}{_dry(one)}",
        _of_project("prelabel"),
    ),
    JobKind(
        "warm", WarmUp,
        lambda one: f"pictures of project {one.project}{_part(one)}",
        lambda one: f"warm:{one.project}:{one.shard}/{one.shards}",
        shards=lambda _, living: living,
    ),
    JobKind(
        "polygons", SegmentationBuild,
        _polygons_of,
        lambda one: f"{one.build}:{one.shard}/{one.shards}",
        DAYS_SECONDS, shards=_builders,
    ),
    JobKind(
        "import", DataImport,
        lambda one: f"{one.path.name} into project {one.project}",
        lambda one: f"import:{one.project}:{one.path}",
    ),
    JobKind("export", DataExport, lambda one: f"{one.form} of project {one.project}{_dry(one)}", _of_output),
    JobKind("register", Registration, lambda one: f"register {one.path.name}", lambda one: f"register:{one.path}"),
    JobKind("undo", Undo, lambda one: f"take back {one.of}{_dry(one)}", lambda one: f"undo:{one.of}"),
)  # fmt: skip
"""All kinds of jobs that requests ask for."""
