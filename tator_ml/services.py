"""What a backend needs, built once for the web process and passed on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Protocol

from tator_ml.engine.client import Answers
from tator_ml.engine.messages import EngineError, Status
from tator_ml.engine.routing import open_engines
from tator_ml.images.fetch import ImageFetcher, ImageRef
from tator_ml.images.uses import PictureUses
from tator_ml.learning.follow import Follower
from tator_ml.learning.stores import embedding_cache, example_store, head_registry, image_store, project_choices
from tator_ml.metrics import Metrics
from tator_ml.notices import Notices
from tator_ml.preload import Look, Neighbours, Preloader, Preloads
from tator_ml.projects import ProjectChoices, Projects
from tator_ml.prompts.leftovers import Tidier
from tator_ml.prompts.pending import KeptInVain, PendingPrompts
from tator_ml.quality.comparison import Comparison
from tator_ml.quality.doubts import Doubts
from tator_ml.quality.follow import QualityFollower
from tator_ml.quality.store import QualityStore, quality_store
from tator_ml.suggestions import Suggestions
from tator_ml.vlm.registry import QwenRegistry, qwen_registry
from tator_ml.words.examples_drawn import DrawnExamples
from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings

log = logging.getLogger(__name__)


class Fetches(Protocol):
    """Addresses in tasks → pictures in the store."""

    def fetch(self, address: str, task_id: int | None = None) -> ImageRef:
        """Bring the picture of an address into the store."""
        ...

    def forget(self, ref: ImageRef) -> None:
        """Take no address to mean this picture any more."""
        ...


@dataclass(frozen=True)
class Services:
    """State with its owner; nothing of it is global."""

    settings: Settings
    engine: Answers
    images: Fetches
    projects: Projects
    suggestions: Suggestions
    notices: Notices = field(default_factory=Notices)
    pending: PendingPrompts = field(default_factory=PendingPrompts)
    preloads: Preloads = field(default_factory=lambda: Preloads())
    follower: Follower | None = None
    neighbours: Look | None = None
    metrics: Metrics = field(default_factory=Metrics)
    kept_in_vain: KeptInVain = field(default_factory=KeptInVain)
    examples: DrawnExamples = field(default_factory=DrawnExamples)
    uses: PictureUses = field(default_factory=PictureUses)
    quality_record: QualityStore | None = None
    quality: QualityFollower = field(init=False)
    preloader: Preloader = field(init=False)
    tidier: Tidier = field(init=False)
    qwen: QwenRegistry = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "preloader", Preloader(self.preloads, self.make_ready, self.neighbours, self._drop))
        object.__setattr__(self, "qwen", qwen_registry(self.settings, self.projects))
        record = self.quality_record or quality_store(self.settings)
        object.__setattr__(self, "quality", QualityFollower(self.settings, record, self.suggestions))
        object.__setattr__(self, "tidier", Tidier(self.settings))

    def close(self) -> None:
        """Begin nothing more, finish what was begun, and close files and connections."""
        self.preloads.close()
        self.tidier.close()
        if self.follower is not None:
            self.follower.close()
        self.quality.close()
        self.suggestions.close()
        end = getattr(self.engine, "close", None)  # an answering object of a caller's own may have nothing to end
        if end is not None:
            end()

    def preloads_for(self, choices: ProjectChoices) -> bool:
        """Whether pictures of a project with these choices are made ready before they are opened."""
        return self.settings.preload if choices.preload is None else choices.preload

    def choose(self, project: int, **choices: Any) -> ProjectChoices:
        """Change some of a project's choices, from the next request on.

        Raises:
            TatorError: a value that does not exist.
        """
        if choices.get("assists") is not None:
            choices["assists"] = tuple(choices["assists"])
        chosen = self.projects.choose(project, **choices)
        if not self.preloads_for(chosen):
            self.preloader.forget(project)
        return chosen

    def compare(self, project: int, comparison: Comparison | None) -> None:
        """Begin a comparison of labelling with and without assistance, or end the one that goes on."""
        if comparison is None:
            self.quality.store.end_comparison(project)
        else:
            self.quality.store.begin_comparison(project, comparison)
        self.projects.choose(project, comparison=comparison)

    def make_ready(self, project: int, task: int | None, address: str, looked_at: bool = False) -> str | None:
        """Fetch a picture and have it encoded; of one that nobody looks at yet, a failure is told to the log alone.

        Returns:
            Its content hash, None where it failed.
        """
        segmenter = self.projects.get(project).clicks_by
        try:
            image = self.images.fetch(address, task).image
            if project:
                self.uses.seen(image, project, task)
            ready = self.engine.warm(image, segmenter, _group(project, image))
        except TatorError as error:
            log.warning("project %s, task %s is not warm: %s", project, task, error)
            if looked_at:
                self.notices.failed(project or None, str(error))
            return None
        if looked_at:
            self.notices.opened(project or None, ready)
        return image

    def _drop(self, project: int, images: Collection[str]) -> None:
        """Take back what the engine was given and has not begun."""
        try:
            for image in images:
                self.engine.drop_preloads((), _group(project, image))
        except TatorError as error:
            log.warning("project %s: preloads stay: %s", project, error)


def _group(project: int, image: str) -> str:
    # one for each picture: what another thread is just handing over must not be dropped with it
    return f"{project}/{image}"


class EngineWatch:
    """The engine's status, asked every second in the background, so that nobody waits for it."""

    def __init__(self, engine: Answers, every_seconds: float = 1.0) -> None:
        self._engine = engine
        self._every_seconds = every_seconds
        self._ended = threading.Event()
        self._status = Status(False, "", "", {}, (), 0, 0, "Tator's engine has not answered yet.")
        self._thread = threading.Thread(target=self._watch, name="tator-engine-watch", daemon=True)

    def start(self) -> None:
        """Begin asking."""
        self._thread.start()

    @property
    def status(self) -> Status:
        """The last known status."""
        return self._status

    def stop(self) -> None:
        """Ask no more."""
        self._ended.set()

    def look(self) -> None:
        """Ask now; whatever comes of it is a status, so that the watch goes on."""
        try:
            self._status = self._engine.status()
        except EngineError as error:
            self._status = self._not_ready(str(error))
        except Exception:  # an answer of another version, for one
            log.exception("the engine's status cannot be used")
            self._status = self._not_ready("Tator's engine gives an answer that cannot be used; its log says more.")

    def _not_ready(self, why: str) -> Status:
        return Status(False, "", self._status.model_version, {}, (), 0, 0, why)

    def _watch(self) -> None:
        while not self._ended.is_set():
            self.look()
            self._ended.wait(self._every_seconds)


def build_services(settings: Settings) -> Services:
    """Services of a web process: an engine at its address, pictures and records under home."""
    store, projects = image_store(settings), project_choices(settings)
    registry = head_registry(settings, projects)
    engine, images = open_engines(settings, store, registry.files), ImageFetcher(settings, store)
    quality = quality_store(settings)
    follower = Follower(
        settings,
        engine,
        images,
        example_store(settings),
        embedding_cache(settings),
        registry,
        projects,
        Doubts(quality),
    )
    return Services(
        settings=settings,
        engine=engine,
        images=images,
        projects=projects,
        suggestions=Suggestions(settings.home / "suggestions.sqlite"),
        follower=follower,
        quality_record=quality,
        neighbours=Neighbours(settings) if settings.label_studio_api_key else None,
    )
