"""What a job is to do, how it can end, and the name of the message that brings it to a worker."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tator_ml.jobs.device import queue_name
from tator_ml.jobs.records import Status

Fields = dict[str, str]
"""A record's hash as text."""


@dataclass(frozen=True)
class Order:
    """What a job is to do: all that is needed to start it, also a second time.

    Attributes:
        kind: e.g. ``clip``; the id begins with it.
        function: dotted name of what the worker calls with the id and the request.
        request: JSON.
        title: for people.
        project: of Label Studio, if it belongs to one.
        unique: at most one job of this name runs and one waits.
        timeout_seconds: of one attempt.
        device: that it asks for, as ``cuda:1``; None for any worker's.
    """

    kind: str
    function: str
    request: dict[str, Any]
    title: str
    project: int | None
    unique: str | None
    timeout_seconds: int
    device: str | None = None

    @property
    def queue(self) -> str:
        """Name of the queue that it goes to."""
        return queue_name(self.device)

    @classmethod
    def of(cls, fields: Fields) -> Order:
        """The order behind a record."""
        return cls(
            kind=fields["kind"],
            function=fields["function"],
            request=json.loads(fields["request"]),
            title=fields["title"],
            project=int(fields["project"]) if fields["project"] else None,
            unique=fields["unique"] or None,
            timeout_seconds=int(fields["timeout_seconds"]),
            device=fields.get("device") or None,
        )


@dataclass(frozen=True)
class Ending:
    """How a job ended: with a result, with an error of one sentence, or cancelled."""

    status: Status
    result: dict[str, Any] | None = None
    error: str | None = None


def message_of(job_id: str, delivery: int | str) -> str:
    """Id of the RQ job that carries one delivery."""
    return f"{job_id}_{delivery}"


def parse_message(message: str) -> tuple[str, str]:
    """Job id and delivery of an RQ job; the id is empty where it carries none of ours."""
    job_id, _, delivery = message.rpartition("_")
    return job_id, delivery


def timeout_sentence(seconds: float) -> str:
    """Why a job that ran too long was ended."""
    span = f"{seconds / 3600:.3g} h" if seconds >= 3600 else f"{seconds:.0f} s"
    return f"It took longer than its limit of {span}; ask for less at once and start it again."
