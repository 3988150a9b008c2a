"""Which tasks a request means: a project's, a view's, or those that were named."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from tator_sdk.errors import TatorError
from tator_sdk.studio import LABELLED, StudioError, sentences

PAGE_TASKS = 100
NAMED_TOGETHER = 50  # tasks in one query, which travels in an address


def selected_tasks(
    studio: Any,
    url: str,
    project: int,
    view: int | None = None,
    tasks: Sequence[int] = (),
    query: str | None = LABELLED,
) -> tuple[int, Iterator[Any]]:
    """How many tasks are meant, and the tasks, each once, fetched a page at a time.

    Reading one by one with ``tasks.get`` would count as opening it, and Label Studio would ask the backend.

    Args:
        studio: the SDK's client.
        url: where it is, for messages.
        project: its number.
        view: only those of this view of the Data Manager.
        tasks: only these.
        query: where neither is given, a filter as Label Studio takes it; None for all of the project.

    Raises:
        TatorError: there is no such view or task in the project; or from the iteration.
    """
    if tasks:
        return _named(studio, url, project, tasks)
    chosen: dict[str, Any] = {"query": query} if query else {}
    if view is not None:
        _check_view(studio, url, project, view)
        chosen = {"view": view}
    with sentences(url):
        pager = studio.tasks.list(project=project, page_size=PAGE_TASKS, **chosen)
    return int(pager.response.total), _each(pager, url)


def _check_view(studio: Any, url: str, project: int, view: int) -> None:
    from label_studio_sdk.core.api_error import ApiError

    with sentences(url):
        try:
            belongs = int(studio.views.get(str(view)).project)
        except ApiError as error:
            if error.status_code != 404:
                raise
            raise TatorError(
                f"There is no view {view}; its number stands after tab= in the address of the Data Manager."
            ) from error
    if belongs != project:
        raise TatorError(f"View {view} belongs to project {belongs}, not to {project}; give --project {belongs}.")


def _each(pager: Any, url: str) -> Iterator[Any]:
    seen: set[int] = set()  # pages shift where somebody labels meanwhile
    with sentences(url):
        for task in pager:
            if task.id not in seen:
                seen.add(task.id)
                yield task


def _named(studio: Any, url: str, project: int, tasks: Sequence[int]) -> tuple[int, Iterator[Any]]:
    wanted = list(dict.fromkeys(tasks))
    found: dict[int, Any] = {}
    for begin in range(0, len(wanted), NAMED_TOGETHER):
        with sentences(url):
            query = _query(wanted[begin : begin + NAMED_TOGETHER])
            found |= {t.id: t for t in studio.tasks.list(project=project, query=query, page_size=PAGE_TASKS)}
    missing = [str(number) for number in wanted if number not in found]
    if missing:
        raise StudioError(f"Project {project} has no task {', '.join(missing[:10])}; check the numbers.")
    return len(wanted), iter([found[number] for number in wanted])


def _query(numbers: Sequence[int]) -> str:
    items = [
        {"filter": "filter:tasks:id", "operator": "equal", "type": "Number", "value": number} for number in numbers
    ]
    return json.dumps({"filters": {"conjunction": "or", "items": items}})
