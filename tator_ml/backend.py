"""Label Studio's requests → prompts → answers: the 2.x contract of ``LabelStudioMLBase``."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

from label_config.errors import LabelConfigError
from label_config.reader import Control, Interface, read_cached
from tator_ml.engine.messages import Answer, Busy, Found, Superseded
from tator_ml.events import take_event
from tator_ml.images.decode import ImageError
from tator_ml.images.fetch import ImageRef
from tator_ml.projects import ProjectChoices
from tator_ml.prompts import dialect
from tator_ml.prompts.asking import answer_or_without_class, ask_for
from tator_ml.prompts.assists import (
    Assist,
    AssistError,
    Drawing,
    prompt_kind,
    write_regions,
)
from tator_ml.prompts.on_open import drawings_on_open
from tator_ml.prompts.request import first_addresses, kept_prompts, output_kinds, project_number, task_number
from tator_ml.quality.comparison import NO_ASSISTANCE
from tator_ml.services import Services, build_services
from tator_ml.words import commands
from tator_ml.words import typed as typed_words
from tator_ml.words.exemplars import find_alike
from tator_ml.words.kept import KeptAnswers
from tator_sdk.annotations import labels_of
from tator_sdk.disk import FULL, disk_is_full
from tator_sdk.errors import TatorError
from tator_sdk.regions import Region
from tator_sdk.settings import Settings

log = logging.getLogger(__name__)

Json = Mapping[str, Any]
Result = dict[str, Any] | list[Any]
SURPRISE = "Tator had an unexpected error with this picture; its log says more."
NOTHING_TO_STORE: list[Any] = []  # as a task's entry: unlike an empty result, Label Studio stores no prediction for it


class TatorBackend:
    """Answers for one project; cheap to build, since everything heavy lives in ``services``."""

    def __init__(
        self, project_id: object = None, label_config: str | None = None, services: Services | None = None
    ) -> None:
        """Prepare for requests of one project.

        Args:
            project_id: Label Studio's project value, ``"3.1795376427"`` or ``3``.
            label_config: the labelling configuration's XML.
            services: shared state; built from the environment when missing, as the library does.
        """
        self.project = project_number(project_id)
        self._label_config = label_config or ""
        self._assist, self._lane = "", "click"
        self._looked_at = True
        self._until = 0.0
        self._services = services or build_services(Settings())
        self.setup()

    def setup(self) -> None:
        """Part of the contract; nothing is to be set up for each request."""

    @property
    def interface(self) -> Interface:
        """The labelling configuration, understood.

        Raises:
            LabelConfigError: it cannot be read.
        """
        return read_cached(self._label_config)

    @cached_property
    def _choices(self) -> ProjectChoices:
        """The project's choices, read once for a request; the next request has a backend of its own."""
        return self._services.projects.get(self.project)

    @cached_property
    def _kept(self) -> KeptAnswers | None:
        """Answers with the words that the project keeps, where it does."""
        words = self._choices.words
        if words is None or self.project is None:
            return None
        return KeptAnswers(self._services, self.project, self._choices, words, self._looked_at, self._until)

    def predict(
        self, tasks: Sequence[Json], context: Json | None = None, asked_by: str | None = None, **_: Any
    ) -> list[Result]:
        """Answer for each task; one that fails gets an empty answer, and the strip says why.

        Args:
            tasks: as Label Studio sends them.
            context: ``{"result": [prompts]}`` for interactive requests, None for batches.
            asked_by: User-Agent of the request, for the strip's state.

        Returns:
            One ``{"result", "score", "model_version"}`` for each task, in order. Without context, a task with
            nothing to say gets ``[]``: Label Studio then stores no empty prediction, and asks again at the next
            opening, which is what warming wants.
        """
        self._services.notices.begin(self.project, asked_by)
        self._looked_at = len(tasks) == 1  # several tasks at once are a batch: nobody looks at them
        self._until = time.monotonic() + self._services.settings.answer_timeout_seconds
        try:
            return [self._one(task, context) for task in tasks]
        finally:
            self._services.notices.end(self.project)

    def fit(self, event: str, data: Json, **_: Any) -> dict[str, Any]:
        """Take note of an event; unknown ones are ignored.

        Returns:
            What is told to Label Studio, which shows none of it.
        """
        return take_event(self._services, self.project, event, data)

    def _one(self, task: Json, context: Json | None) -> Result:
        begun, outcome = time.monotonic(), "error"
        self._assist = "event" if context else "opened" if self._looked_at else "batch"
        self._lane = "click" if context else "preload"
        try:
            result = self._answered(task, context)
            outcome = "answered" if result and (isinstance(result, list) or result["result"]) else "empty"
            return result
        except Superseded:  # the newer request, which has these prompts too, is answered
            outcome = "superseded"
        except (TatorError, LabelConfigError) as error:
            outcome = "busy" if isinstance(error, Busy) else "refused"
            log.warning("project %s, task %s: %s", self.project, task_number(task), error)
            self._services.notices.failed(self.project, str(error))
        except Exception as error:  # one task's surprise must not take the answers of the others
            log.exception("project %s, task %s failed", self.project, task_number(task))
            self._services.notices.failed(self.project, FULL if disk_is_full(error) else SURPRISE)
        finally:
            self._services.metrics.answered(self._assist, self._lane, outcome, time.monotonic() - begun)
        return self._result(kept_prompts(context)) if context else NOTHING_TO_STORE

    def _answered(self, task: Json, context: Json | None) -> Result:
        if context and dialect.is_event(context):
            return self._event(task, context)
        if self._withheld(task):
            return self._unassisted(task, context)
        if context:
            return self._interactive(task, context)
        return self._opened(task)

    def _withheld(self, task: Json) -> bool:
        """Whether a task gets no assistance, which the strip is told if somebody looks at it."""
        drawn = not self._choices.assists_on(task_number(task))
        if self._looked_at:
            self._services.notices.withheld(self.project, NO_ASSISTANCE if drawn else None)
        return drawn

    def _unassisted(self, task: Json, context: Json | None) -> Result:
        """The answer on a task that is drawn for the comparison.

        A drawn box or stroke is given back as it was: with auto-accept on, the editor removes what is answered with
        nothing.
        """
        self._assist = "withheld"
        if context:
            return self._result(kept_prompts(context))
        if self._looked_at:
            self._look(task, opened=True)  # for the tasks that come next
        return NOTHING_TO_STORE

    def _event(self, task: Json, context: Json) -> Result:
        event = dialect.event_of(context)
        if event == "capabilities":
            status = self._services.engine.status()
            return self._result([dialect.capabilities(self.interface, status.model_version)])
        if event == "prewarm":
            self._look(task, opened=True)
        return self._result()

    def _opened(self, task: Json) -> Result:
        """A task without prompt: warm its pictures; refine or classify predictions where asked to.

        Label Studio makes the annotator wait for this answer, so a picture is fetched here only if the answer
        depends on it.
        """
        regions: list[Region] = []
        version = ""
        self._look(task, opened=True) if self._looked_at else self._batch(task)
        for image in self.interface.images:
            standing = drawings_on_open(self.interface, task, image.name)
            if not standing:
                continue
            ref = self._fetch(task, image.name)
            assists = [assist for drawing in standing for assist in replace(drawing, size_wh=ref.size_wh).assists()]
            answer = self._answer(ref, assists)
            version = answer.model_version
            regions += self._written(assists, answer)
        try:
            kept = self._kept.answer(self.interface, task, partial(self._fetch, task)) if self._kept else None
        except TatorError as error:
            if not regions:
                raise
            log.warning("project %s, task %s: without kept words: %s", self.project, task_number(task), error)
            self._services.notices.failed(self.project, str(error))
            kept = None
        if kept:
            regions, version = regions + kept.regions, kept.model_version
        return self._result(regions, version) if regions else NOTHING_TO_STORE

    def _batch(self, task: Json) -> None:
        """Have the picture of a task made ready that nobody looks at yet."""
        if self._services.preloads_for(self._choices):
            for address in first_addresses(self.interface, task.get("data")):
                ready = partial(self._services.make_ready, self.project or 0, task_number(task), address)
                self._services.preloads.submit(ready)

    def _look(self, task: Json, opened: bool) -> None:
        """Have this task's picture made ready, and those that come next; behind the answer."""
        interface, number = self.interface, task_number(task)
        self._services.notices.configured(self.project, output_kinds(interface))
        if number is None or not self._services.preloads_for(self._choices):
            return
        if opened:
            for image in interface.images:
                self._address(task, image.name)  # one that is missing is told at once
        read = partial(first_addresses, interface)
        addresses = read(task.get("data"))
        self._services.preloader.looked_at(self.project or 0, number, addresses, read, opened)

    def _interactive(self, task: Json, context: Json) -> Result:
        items = [item for item in context.get("result") or [] if isinstance(item, Mapping)]
        if not items:  # a prompt was deleted, or the annotation is being submitted
            self._services.examples.forget_negatives(self.project, task.get("id"))
            return self._result()
        control = self._control(items[-1])
        kind = self._assist = prompt_kind(control, labels_of(items[-1]))
        if kind == "text":
            return self._typed(items[-1], control, task)
        if kind == "exemplars":
            return self._exemplars(items, control, task)
        if kind == "points":
            items = self._services.pending.points(items, task)
            if not items:  # only points of accepted objects are left
                return self._result()
        return self._drawn(kind, items, control, task)

    def _drawn(self, kind: str, items: Sequence[Json], control: Control, task: Json) -> Result:
        """Points, boxes and strokes."""
        image_name = str(items[-1].get("to_name") or control.to_name[0])
        begun = time.monotonic()
        self._look(task, opened=False)
        pending = self._services.pending.of(items, task)
        ref, choices = self._fetch(task, image_name), self._choices
        wanted = frozenset(choices.assists) if choices.assists is not None else None
        drawing = Drawing(
            self.interface, control, image_name, items, task, ref.size_wh, pending, wanted, choices.output,
        )  # fmt: skip
        assists = drawing.assists()
        if not assists:
            return self._result()
        about = f"{self.project}/{task.get('id')}"
        asked_about = [item for item in items if kind in ("points", "tweak") or str(item.get("id")) in pending]
        answer = self._answer(ref, assists, about, tuple(str(item["id"]) for item in asked_about if "id" in item))
        regions = self._written(assists, answer)
        if not regions:
            raise AssistError("Nothing was found there; click closer to the object's middle or draw a box.")
        if kind == "points":
            self._services.pending.answered_points(items, task, assists[0].region_id)
        else:
            self._services.pending.answered([item for item in items if str(item.get("id")) in pending], task)
        self._report(assists, answer, regions, time.monotonic() - begun)
        self._services.suggestions.record(
            self.project, task_number(task), [str(item.get("id")) for item in items], regions, answer.model_version,
            kind, ref.image, [*items, *(assist.drawn for assist in assists if assist.drawn)],
        )  # fmt: skip
        if dialect.is_new(items):
            regions = [dialect.region(one) for one in regions]
        return self._result(regions, answer.model_version)

    def _typed(self, item: Json, control: Control, task: Json) -> Result:
        """Words in the prompt field."""
        text = commands.last_text(item)
        is_command = text.startswith(commands.SIGN)
        self._lane = "batch" if is_command else "words"
        run, argument = commands.command_of(text) if is_command else (typed_words.find, text)
        self._look(task, opened=False)
        return self._done(run(self._request(item, control, task, argument)), task, [item])

    def _exemplars(self, items: Sequence[Json], control: Control, task: Json) -> Result:
        """Boxes around examples of what is to be found."""
        self._lane = "words"
        pending = self._services.pending.of(items, task)
        waiting = [item for item in items if str(item.get("id")) in pending]
        if not waiting:
            return self._result()
        self._look(task, opened=False)
        done = find_alike(self._request(waiting[-1], control, task), items, pending)
        self._services.pending.answered(waiting, task)
        if dialect.is_new(items):
            done = replace(done, regions=[dialect.region(one) for one in done.regions])
        return self._done(done, task, waiting)

    def _request(self, item: Json, control: Control, task: Json, argument: str = "") -> commands.Typed:
        image_name = str(item.get("to_name") or control.to_name[0])
        return commands.Typed(
            argument,
            self._services,
            self.project,
            self._choices,
            self.interface,
            control,
            task,
            str(item.get("id")),
            image_name,
            partial(self._fetch, task, image_name),
        )

    def _done(self, done: commands.Done, task: Json, prompts: Sequence[Json]) -> Result:
        self._assist = done.assist
        self._services.notices.answered(self.project, done.said, done.was_warm)
        if done.regions:
            asked = [str(item.get("id")) for item in prompts]
            self._services.suggestions.record(
                self.project, task_number(task), asked, done.regions, done.model_version, done.assist,
                before=done.stood,
            )  # fmt: skip
        return self._result(done.regions, done.model_version)

    def _control(self, item: Json) -> Control:
        """The prompt's tag; the newer dialect may leave it out, then the first that takes its type."""
        name = item.get("from_name")
        if name:
            return self.interface.control(str(name))
        return dialect.control_for(self.interface, item)

    def _fetch(self, task: Json, image_name: str) -> ImageRef:
        ref = self._services.images.fetch(self._address(task, image_name), task_number(task))
        if self.project:
            self._services.uses.seen(ref.image, self.project, task_number(task))
        return ref

    def _address(self, task: Json, image_name: str) -> str:
        data = task.get("data")
        urls = self.interface.image(image_name).urls(data if isinstance(data, Mapping) else {})
        if not urls:
            raise AssistError(f"The task has no picture for the image '{image_name}'.")
        return urls[0]

    def _answer(
        self, ref: ImageRef, assists: Sequence[Assist], task: str = "", prompt_ids: tuple[str, ...] = ()
    ) -> Answer:
        choices = self._choices
        ask = ask_for(ref.image, assists, choices.head)
        ask = replace(ask, segmenter=choices.clicks_by, task=task, prompt_ids=prompt_ids)
        try:
            return answer_or_without_class(self._services.engine, ask)[0]
        except ImageError:
            self._services.images.forget(ref)
            raise

    def _written(self, assists: Sequence[Assist], answer: Answer) -> list[Region]:
        agreement = self._services.settings.guard_agreement
        return [
            written
            for assist, found in zip(assists, answer.found, strict=True)
            for written in write_regions(assist, found, self.interface, answer.size_wh, agreement)
        ]

    def _report(self, assists: Sequence[Assist], answer: Answer, regions: list[Region], seconds: float) -> None:
        found = next((one for one in answer.found if one is not None), None)
        said = _said(found, assists[0])
        self._services.notices.answered(self.project, f"{said} in {1000 * seconds:.0f} ms", answer.was_warm)

    def _result(self, regions: Sequence[Region] = (), model_version: str = "") -> Result:
        scores = [one["score"] for one in regions if "score" in one]
        return {"result": list(regions), "score": min(scores, default=0.0), "model_version": model_version}


def _said(found: Found | None, assist: Assist) -> str:
    if found and found.verdict and found.verdict.label:
        return f"{found.verdict.label} {found.verdict.probability:.2f}"
    label = assist.labels[0] if assist.labels else "object"
    return f"{label} (yours)" if found and found.verdict else label
