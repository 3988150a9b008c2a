"""The quality record kept up to date: annotations as webhooks tell them, or a whole project read again."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from label_config.errors import LabelConfigError
from label_config.interface import Interface
from label_config.reader import read_cached
from tator_ml.moments import epoch_of
from tator_ml.quality.doubts import Doubts
from tator_ml.quality.outcomes import Submitted
from tator_ml.quality.store import QualityStore
from tator_ml.suggestions import Suggestions
from tator_sdk.annotations import addresses_of
from tator_sdk.bulk import BulkApi, open_bulk
from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings
from tator_sdk.studio import LABELLED, StudioError

log = logging.getLogger(__name__)

Json = Mapping[str, Any]
TASKS_A_PAGE = 100


class QualityFollower:
    """Follows the annotations of all projects, one after the other, behind the webhooks' answers.

    Attributes:
        store: of annotations and outcomes.
        doubts: the queues of doubtful labels.
    """

    def __init__(self, settings: Settings, store: QualityStore, suggestions: Suggestions) -> None:
        self.store = store
        self.doubts = Doubts(store)
        self._settings = settings
        self._suggestions = suggestions
        self._order = ThreadPoolExecutor(1, thread_name_prefix="tator-quality")

    def annotated(self, project: int, annotation: Json, task: Json, label_config: str) -> None:
        """An annotation was submitted or changed."""
        self._order.submit(self._guarded, project, lambda: self._annotated(project, annotation, task, label_config))

    def deleted(self, project: int, annotations: Sequence[int]) -> None:
        """Annotations were deleted."""
        self._order.submit(self._guarded, project, lambda: self._deleted(project, annotations))

    def settle(self) -> None:
        """Wait until everything that came so far is on record."""
        self._order.submit(lambda: None).result()

    def close(self) -> None:
        """Finish what was begun, and close the file."""
        self._order.shutdown(cancel_futures=True)
        self.store.close()

    def _guarded(self, project: int, work: Callable[[], None]) -> None:
        try:
            work()
        except (TatorError, LabelConfigError) as error:
            log.warning("project %s: %s", project, error)
        except Exception:  # nobody waits for this thread's result
            log.exception("project %s: an annotation is not in the quality record", project)

    def _annotated(self, project: int, annotation: Json, task: Json, label_config: str) -> None:
        number = int(annotation["id"])
        submitted = submitted_of(annotation)
        if submitted is None:
            self._deleted(project, [number])
            return
        if submitted.parent is not None and not self.store.knows_prediction(project, submitted.parent):
            self._read_prediction(project, submitted.parent)
        task_id = int(annotation.get("task") or task["id"])
        addresses = addresses_of(read_cached(label_config), task.get("data") or {})
        with self.store.writing():  # an annotation without its outcomes must not stay, whenever this process ends
            self.store.put(project, task_id, submitted, addresses)
            self.store.judge(project, task_id, self._suggestions.objects_of(project, task_id))

    def _deleted(self, project: int, annotations: Sequence[int]) -> None:
        forget(self.store, self._suggestions, project, annotations)

    def _read_prediction(self, project: int, number: int) -> None:
        try:
            with open_bulk(self._settings) as api:
                keep_prediction(self.store, project, api.get(f"/api/predictions/{number}/"))
        except TatorError as error:  # it may be deleted; what was asked interactively is judged all the same
            log.info("project %s: prediction %s cannot be read: %s", project, number, error)


def forget(store: QualityStore, suggestions: Suggestions, project: int, annotations: Sequence[int]) -> None:
    """Take annotations off the record, and judge anew what they decided, in one transaction."""
    with store.writing():
        for task in store.delete(project, annotations):
            store.judge(project, task, suggestions.objects_of(project, task))


@dataclass(frozen=True)
class ProjectRead:
    """What reading a project came to: how many ``tasks`` and ``annotations`` it has, and how many are ``gone``."""

    tasks: int
    annotations: int
    gone: int


def read_project(
    api: BulkApi,
    store: QualityStore,
    suggestions: Suggestions,
    project: int,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> ProjectRead:
    """Take all annotations of a project as they are now, with the predictions that they began with.

    Webhooks go on meanwhile, and know better than a page that was read a moment ago: a newer state stays, and what was
    deleted stays so. What no page had is gone only where Label Studio says so, since pages shift.

    Args:
        api: of Label Studio.
        store: that takes them.
        suggestions: what was suggested.
        project: Label Studio's number.
        told: how many tasks are done, of how many.

    Raises:
        StudioError: Label Studio refuses, or does not answer.
        TatorError: the labelling configuration cannot be read.
    """
    about = api.get(f"/api/projects/{project}/")
    try:
        interface = read_cached(str(about.get("label_config") or ""))
    except LabelConfigError as error:
        raise TatorError(str(error)) from error
    store.set_people({int(one["id"]): _name_of(one) for one in api.get("/api/users") if isinstance(one, Mapping)})
    total = int(about.get("num_tasks_with_annotations") or 0)
    known, seen, tasks = store.known(project), set[int](), 0
    for task in _annotated_tasks(api, project):
        tasks += 1
        with store.writing():
            seen |= _read_task(store, suggestions, project, task, interface, known)
        told(tasks, max(total, tasks))
    gone = [number for number in sorted(known - seen) if _is_gone(api, number)]
    forget(store, suggestions, project, gone)
    store.set_read(project, datetime.datetime.now(datetime.UTC).timestamp())
    return ProjectRead(tasks, len(seen), len(gone))


def _annotated_tasks(api: BulkApi, project: int) -> Iterator[Json]:
    """Tasks of a project that have annotations, whole: where fields are named, annotations are no more than numbers."""
    seen: set[int] = set()  # pages shift where somebody labels meanwhile
    page, total = 1, 1
    while (page - 1) * TASKS_A_PAGE < total:
        answer = api.get(
            "/api/tasks", project=project, page=page, page_size=TASKS_A_PAGE, fields="all", resolve_uri="false",
            query=LABELLED,
        )  # fmt: skip
        total = int(answer["total"])
        for task in answer["tasks"]:
            if task["id"] not in seen:
                seen.add(task["id"])
                yield task
        page += 1


def submitted_of(annotation: Json) -> Submitted | None:
    """An annotation as Label Studio sends it; None for one that was skipped: nothing was said about its objects."""
    if annotation.get("was_cancelled"):
        return None
    by, lead, parent = (annotation.get(key) for key in ("completed_by", "lead_time", "parent_prediction"))
    if isinstance(by, Mapping):
        by = by.get("id")
    created = epoch_of(annotation.get("created_at"))
    return Submitted(
        int(annotation["id"]),
        created,
        max(created, epoch_of(annotation.get("updated_at"))),
        annotation.get("result") or [],
        by if isinstance(by, int) else None,
        float(lead) if isinstance(lead, int | float) else None,
        parent if isinstance(parent, int) else None,
    )


def keep_prediction(store: QualityStore, project: int, prediction: Json) -> None:
    """Keep a prediction as Label Studio sends it."""
    store.put_prediction(
        project,
        int(prediction["task"]),
        int(prediction["id"]),
        epoch_of(prediction.get("created_at")),
        str(prediction.get("model_version") or ""),
        prediction.get("result") or [],
    )


def _is_gone(api: BulkApi, annotation: int) -> bool:
    """Whether an annotation is deleted, or skipped since."""
    try:
        return submitted_of(api.get(f"/api/annotations/{annotation}/")) is None
    except StudioError as error:
        if error.status == 404:
            return True
        raise


def _read_task(
    store: QualityStore, suggestions: Suggestions, project: int, task: Json, interface: Interface, known: set[int]
) -> set[int]:
    """Take a task's annotations; returns their numbers.

    Those that were ``known`` when the reading began, and are not on record any more, were deleted since.
    """
    number = int(task["id"])
    addresses = addresses_of(interface, task.get("data") or {})
    submitted = [one for each in task.get("annotations") or [] if (one := submitted_of(each)) is not None]
    submitted = [one for one in submitted if one.annotation not in known or store.knows(project, one.annotation)]
    parents = {one.parent for one in submitted}
    for prediction in task.get("predictions") or []:
        if prediction.get("id") in parents:
            keep_prediction(store, project, {**prediction, "task": number})
    for one in submitted:
        store.put(project, number, one, addresses, newer_stays=True)
    store.judge(project, number, suggestions.objects_of(project, number))
    return {one.annotation for one in submitted}


def _name_of(person: Json) -> str:
    name = " ".join(str(person.get(key) or "") for key in ("first_name", "last_name")).strip()
    return name or str(person.get("email") or person.get("username") or f"person {person['id']}")
