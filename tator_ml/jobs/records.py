"""How jobs stand: one record for each, with its log and its curve, read by commands, pages and tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import redis

from tator_sdk.errors import TatorError

Status = Literal["queued", "running", "done", "failed", "cancelled"]
OPEN_STATUSES: tuple[Status, ...] = ("queued", "running")

INDEX = "tator:jobs:index"
"""Sorted set of all ids by time of creation."""
OPEN = "tator:jobs:open"
"""Set of the ids of queued and running jobs."""
ENDED = "tator:jobs:ended"
"""Sorted set of the ids of ended jobs by time of their end."""

MOST_LOG_LINES = 10_000
MOST_POINTS = 5_000
SUMMARY = (
    "id", "kind", "title", "project", "status", "done", "total", "what", "created", "started", "ended", "attempt",
    "error", "host",
)  # fmt: skip
"""Fields of a record that are small, whatever the job."""

Lines = list[str]
Points = list[dict[str, Any]]

_LOG_PAGE = """
local about = redis.call('HMGET', KEYS[1], 'id', 'log_end')
local log_end = tonumber(about[2] or 0)
local dropped = log_end - redis.call('LLEN', KEYS[2])
return {about[1], log_end, redis.call('LRANGE', KEYS[2], math.max(0, ARGV[1] - dropped), -1)}
"""


def record_key(job_id: str) -> str:
    """The hash of one job."""
    return f"tator:job:{job_id}"


def log_key(job_id: str) -> str:
    """The list of its log lines."""
    return f"tator:job:{job_id}:log"


def points_key(job_id: str) -> str:
    """The list of its curve's points, as JSON."""
    return f"tator:job:{job_id}:points"


def unique_key(name: str) -> str:
    """The hash of one unique name: ``job``, and ``again``, the order that follows it."""
    return f"tator:jobs:unique:{name}"


def id_stem(kind: str, project: int | None) -> str:
    """What the ids of a kind's jobs, or of those of a project, begin with."""
    return f"{kind}-" if project is None else f"{kind}-{project}-"


class JobError(TatorError):
    """A job cannot be found, started or reached; the message says what to do."""


@dataclass(frozen=True)
class JobRecord:
    """How one job stands.

    Attributes:
        id: short and readable, e.g. ``clip-3-7f2a``.
        kind: what it does, e.g. ``clip`` or ``relabel``.
        title: the same for people.
        project: of Label Studio, if it belongs to one.
        request: what was asked for.
        status: queued, running, done, failed or cancelled.
        done: steps done, of ``total``.
        total: steps in all; 0 while unknown.
        what: the current step in words.
        created: epoch seconds, as ``started`` (first attempt) and ``ended``.
        attempt: how often it was begun; more than 1 after its process died.
        result: what it gave, once done.
        error: one sentence, once failed.
        host: name of the machine that runs or ran it.
    """

    id: str
    kind: str
    title: str
    project: int | None
    request: dict[str, Any]
    status: Status
    done: int
    total: int
    what: str
    created: float
    started: float | None
    ended: float | None
    attempt: int
    result: dict[str, Any] | None
    error: str | None
    host: str | None

    @property
    def over(self) -> bool:
        """Whether it has ended, however."""
        return self.status not in OPEN_STATUSES


def as_text(raw: Mapping[Any, Any]) -> dict[str, str]:
    """A Redis hash with text for bytes."""
    return {key.decode(): value.decode() for key, value in raw.items()}


def record_of(fields: Mapping[str, str]) -> JobRecord:
    """The record that a Redis hash holds."""

    def moment(name: str) -> float | None:
        return float(fields[name]) if fields.get(name) else None

    return JobRecord(
        id=fields["id"],
        kind=fields["kind"],
        title=fields["title"],
        project=int(fields["project"]) if fields.get("project") else None,
        request=json.loads(fields["request"]),
        status=cast(Status, fields["status"]),
        done=int(fields.get("done", 0)),
        total=int(fields.get("total", 0)),
        what=fields.get("what", ""),
        created=float(fields["created"]),
        started=moment("started"),
        ended=moment("ended"),
        attempt=int(fields.get("attempt", 0)),
        result=json.loads(fields["result"]) if fields.get("result") else None,
        error=fields.get("error") or None,
        host=fields.get("host") or None,
    )


def no_such_job(job_id: str) -> JobError:
    """The error of an unknown id."""
    return JobError(f"There is no job {job_id}; `tator jobs list` shows them.")


class JobRecords:
    """Reads the records on a Redis connection."""

    def __init__(self, connection: redis.Redis) -> None:
        self._connection = connection

    def get(self, job_id: str) -> JobRecord:
        """One job.

        Raises:
            JobError: there is none of this id.
        """
        fields = as_text(cast(dict[bytes, bytes], self._connection.hgetall(record_key(job_id))))
        if "id" not in fields:
            raise no_such_job(job_id)
        return record_of(fields)

    def find(self, prefix: str) -> JobRecord:
        """The job whose id is or begins with ``prefix``.

        Raises:
            JobError: none or several do.
        """
        ids = self._ids()
        fitting = [prefix] if prefix in ids else [job_id for job_id in ids if job_id.startswith(prefix)]
        if not prefix or not fitting:
            raise no_such_job(prefix)
        if len(fitting) > 1:
            raise JobError(f"{prefix} could be {', '.join(sorted(fitting)[:5])}; give more of the id.")
        return self.get(fitting[0])

    def list(self, project: int | None = None, limit: int = 50) -> list[JobRecord]:
        """The newest jobs first, of one project or of all."""
        found: list[JobRecord] = []
        ids = self._ids()
        for begin in range(0, len(ids), 100):
            pipe = self._connection.pipeline(transaction=False)
            for job_id in ids[begin : begin + 100]:
                pipe.hgetall(record_key(job_id))
            for raw in pipe.execute():
                if not raw:  # dropped from the history since
                    continue
                record = record_of(as_text(raw))
                if project is None or record.project == project:
                    found.append(record)
            if len(found) >= limit:
                break
        return found[:limit]

    def newest(self, kind: str, project: int) -> JobRecord | None:
        """A project's newest job of a kind, None where there is none; ids tell, so that no other record is read."""
        for job_id in self._ids():
            if job_id.startswith(id_stem(kind, project)):
                raw = cast(dict[bytes, bytes], self._connection.hgetall(record_key(job_id)))
                if raw:  # else dropped from the history since
                    return record_of(as_text(raw))
        return None

    def summaries(self, limit: int) -> Sequence[JobRecord]:
        """The newest jobs first, without their requests and results, in one round trip for all."""
        pipe = self._connection.pipeline(transaction=False)
        for job_id in self._ids()[:limit]:
            pipe.hmget(record_key(job_id), SUMMARY)
        found = (dict(zip(SUMMARY, raw, strict=True)) for raw in pipe.execute())
        return [
            record_of({"request": "{}", **{name: value.decode() for name, value in one.items() if value is not None}})
            for one in found
            if one["id"] is not None  # else dropped from the history since
        ]

    def log_end(self, job_id: str) -> int:
        """How many lines its log had so far; 0 where there is no such job."""
        return int(cast(bytes | None, self._connection.hget(record_key(job_id), "log_end")) or 0)

    def points_end(self, job_id: str) -> int:
        """How many points of its curve are kept."""
        return int(self._connection.llen(points_key(job_id)))

    def log_lines(self, job_id: str, after: int = 0) -> Lines:
        """Its log from line number ``after`` on; of a very long one, the newest lines.

        Raises:
            JobError: there is none of this id.
        """
        return self.log_page(job_id, after)[0]

    def log_page(self, job_id: str, after: int = 0) -> tuple[Lines, int]:
        """As :meth:`log_lines`, and the number to go on after.

        Raises:
            JobError: there is none of this id.
        """
        known, log_end, raw = cast(
            Any, self._connection.register_script(_LOG_PAGE)(keys=[record_key(job_id), log_key(job_id)], args=[after])
        )
        if known is None:
            raise no_such_job(job_id)
        return [line.decode() for line in raw], int(log_end)

    def points(self, job_id: str) -> Points:
        """The points of its curve, in the order they were made.

        Raises:
            JobError: there is none of this id.
        """
        pipe = self._connection.pipeline()
        pipe.exists(record_key(job_id))
        pipe.lrange(points_key(job_id), 0, -1)
        known, raw = pipe.execute()
        if not known:
            raise no_such_job(job_id)
        return [json.loads(one) for one in raw]

    def _ids(self) -> Lines:
        return [one.decode() for one in cast(Any, self._connection.zrevrange(INDEX, 0, -1))]
