"""Kept words: asked again whenever Label Studio asks about a task without a prompt, opened or of a selection."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

from label_config.interface import Control, Interface
from tator_ml.images.fetch import ImageRef
from tator_ml.projects import KeptWords, ProjectChoices
from tator_ml.prompts.assists import AssistError
from tator_ml.services import Services
from tator_ml.words.commands import Done
from tator_ml.words.finding import Worded
from tator_ml.words.in_time import in_time
from tator_ml.words.manner import manner_of
from tator_ml.words.typed import ENGINE_SHARE, said_of
from tator_sdk.errors import TatorError

Json = Mapping[str, Any]
LEAST_SECONDS = 2.0  # with less left of a request, a task is not begun


class OutOfTime(TatorError):
    """A request's time does not suffice for another task."""


class KeptAnswers:
    """Answers the tasks of one request with a project's kept words."""

    def __init__(
        self, services: Services, project: int, choices: ProjectChoices, words: KeptWords, looked_at: bool, until: float
    ) -> None:
        """Nothing is asked yet.

        Args:
            services: of the web process.
            project: its number.
            choices: of the project.
            words: kept.
            looked_at: somebody opened the task; otherwise the request is about a selection.
            until: when the request must be answered, by ``time.monotonic``.
        """
        self._services = services
        self._project = project
        self._choices = choices
        self._words = words
        self._looked_at = looked_at
        self._until = until
        self._longest = LEAST_SECONDS

    def answer(self, interface: Interface, task: Json, fetch: Callable[[str], ImageRef]) -> Done | None:
        """Regions of a task for its prediction, or None where there are none to make.

        A task that somebody opens and that has an annotation is left alone, and so is one that has the words'
        prediction already.

        Args:
            interface: of the project.
            task: as Label Studio sends it.
            fetch: brings the picture of an image tag into the store.

        Raises:
            OutOfTime: the request's time does not suffice.
            TatorError: with a sentence.
        """
        if self._looked_at and task.get("annotations"):
            return None
        prompt = self._field(interface)
        image_name = prompt.to_name[0]
        manner = manner_of(self._services, self._project, self._choices, interface, prompt, image_name)
        mark = mark_of(self._words, manner.depends, manner.model_id)
        versions = [str(one.get("model_version")) for one in task.get("predictions") or [] if isinstance(one, Mapping)]
        if any(version.endswith(mark) for version in versions) or self._services.kept_in_vain.knows(
            task.get("id"), mark
        ):
            return None
        if (left := self._until - monotonic()) < self._longest:
            raise OutOfTime(
                "There was no time for the other pictures: retrieve predictions for them again, or let "
                f"`tator prelabel {manner.verb} --project {self._project}` go over the whole project."
            )
        finder, begun = manner.finder(self._services.engine), monotonic()
        ref = fetch(image_name)

        def ask() -> Worded:
            about = f"{self._project}/{task.get('id')}/words"
            lane = "click" if self._looked_at else "batch"
            return finder.find(ref, self._words.text, left * ENGINE_SHARE, lane=lane, task=about)

        worded = in_time(self._services, self._project, lambda: finder.doing, ask, left)
        took = monotonic() - begun
        self._longest = max(self._longest, took)
        self._services.notices.answered(self._project, said_of(worded, self._words.text, took), worded.was_warm)
        if not worded.regions:
            self._services.kept_in_vain.remember(task.get("id"), mark)
            return None
        return Done(worded.regions, "", f"{worded.model_version}{mark}", worded.was_warm)

    def _field(self, interface: Interface) -> Control:
        """The prompt field whose options hold."""
        fields = [one for one in interface.controls if one.takes == "text"]
        wanted = self._words.field
        prompt = next((one for one in fields if wanted in ("", one.name)), None)
        if prompt is None:
            raise AssistError(
                f"The labelling configuration has no prompt field '{wanted}' for the kept words "
                f"'{self._words.text}'; `tator words --project {self._project} --forget` ends them."
            )
        return prompt


def mark_of(words: KeptWords, options: Json, model: str) -> str:
    """How the model version of such predictions ends: other words, options or another model give another one."""
    about = json.dumps([words.text, words.field, dict(options), model], sort_keys=True)
    return f"/words-{hashlib.sha256(about.encode()).hexdigest()[:8]}"
