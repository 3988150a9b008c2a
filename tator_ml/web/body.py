"""A prediction request, read no further than its prompt needs.

At each click Label Studio sends the task with all of its annotations and drafts: a megabyte with a few hundred
masks. Of the regions in them a prompt needs the ids at most, so those alone are read; ``msgspec`` steps over the
rest at a tenth of the cost of ``json.loads``. Only the Tweak tool looks at the regions themselves.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import msgspec
from werkzeug.exceptions import BadRequest

SOURCES = ("annotations", "drafts", "predictions")


class _Region(msgspec.Struct):
    id: str | int | None = None


class _Holder(msgspec.Struct):
    result: list[_Region] | None = None


class _Task(msgspec.Struct):
    id: Any = None
    data: Any = None
    annotations: list[_Holder] | None = None
    drafts: list[_Holder] | None = None
    predictions: list[_Holder] | None = None


class _Body(msgspec.Struct):
    tasks: list[_Task]
    project: Any = None
    label_config: Any = None
    params: Any = None


_DECODER = msgspec.json.Decoder(_Body)


class _Whole:
    """All of a request, read once for all of its tasks, as soon as one is asked for what was stepped over."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    @cached_property
    def tasks(self) -> list[Any]:
        try:
            return list(json.loads(self._raw)["tasks"])
        except (ValueError, RecursionError):  # in a part that was stepped over
            raise BadRequest("The request is not whole JSON in UTF-8.") from None


class SlimTask(Mapping[str, Any]):
    """A task that reads its annotations, drafts and predictions when somebody asks for them.

    What is not here of a task (``meta``, ``created_at``, …) is found as soon as one of those was asked for.
    """

    def __init__(self, whole: _Whole, index: int, read: _Task) -> None:
        self._whole = whole
        self._index = index
        self._read = read

    def region_ids(self, source: str) -> set[str]:
        """Ids of the regions in ``annotations``, ``drafts`` or ``predictions``, without reading the regions."""
        holders: list[_Holder] = getattr(self._read, source) or []
        return {str(region.id) for holder in holders for region in holder.result or []}

    def __getitem__(self, key: str) -> Any:
        if key in ("id", "data"):
            return getattr(self._read, key)
        if key in SOURCES and not getattr(self._read, key):
            return []
        return self._all()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def _all(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._whole.tasks[self._index]
        return found


def read_predict(raw: bytes) -> Mapping[str, Any]:
    """The body of ``/predict``: ``tasks``, ``project``, ``label_config`` and ``params``.

    Raises:
        BadRequest: it is no JSON object.
    """
    try:
        read = _DECODER.decode(raw)
        whole = _Whole(raw)
        tasks = [SlimTask(whole, index, task) for index, task in enumerate(read.tasks)]
        return {"tasks": tasks, "project": read.project, "label_config": read.label_config, "params": read.params}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass  # not as Label Studio writes it: then it is read patiently
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, Mapping):
        raise BadRequest("The request is not a JSON object.")
    return body
