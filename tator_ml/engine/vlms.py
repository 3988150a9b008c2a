"""The vision-language models of an engine: loaded when somebody asks in words, given back when nobody does."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from tator_ml.engine.detections import VlmStatus
from tator_ml.engine.memory import give_back, is_out_of_memory
from tator_ml.engine.messages import EngineError
from tator_ml.vlm.registry import QwenRegistryError, qwen_registry
from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings

if TYPE_CHECKING:
    from tator_ml.vlm.model import Vlm

log = logging.getLogger(__name__)


@dataclass
class _Known:
    """A model by its name."""

    version: str = ""
    nbytes: int = 0
    vlm: Vlm | None = None
    users: int = 0
    used: float = field(default_factory=time.monotonic)
    writing: list[int] = field(default_factory=list)  # tokens of each answer that is being written


class Vlms:
    """Owns them; any thread may ask. Each takes gigabytes: what nobody uses goes before another is loaded."""

    def __init__(self, load: Callable[[str], Vlm]) -> None:
        """Prepare; nothing is loaded yet.

        Args:
            load: a model's name → the model.
        """
        self._load = load
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}
        self._loading: dict[str, Future[Vlm]] = {}
        self._one_at_a_time = threading.Lock()

    @contextmanager
    def using(
        self, name: str, until: float, attempt: Callable[[Callable[[], Vlm]], Vlm] = lambda work: work()
    ) -> Iterator[Vlm]:
        """A model, loaded now if need be; it stays in memory inside of the block.

        Loading goes on when the time is up, so that the next who asks finds it.

        Args:
            name: of the model.
            until: when to wait no longer, on the monotonic clock.
            attempt: does the loading, again where memory was short.

        Raises:
            EngineError: it is still being loaded.
            TatorError: it cannot be loaded; the message says what to do.
        """
        with self._lock:
            known = self._known.setdefault(name, _Known())
            known.users += 1  # also while it is loaded
        try:
            yield known.vlm or attempt(partial(self._loaded, name, until))
        finally:
            with self._lock:
                known.users -= 1
                known.used = time.monotonic()

    @contextmanager
    def writing(self, name: str) -> Iterator[Callable[[int], None]]:
        """Something to tell how many tokens an answer has, for the status."""
        with self._lock:
            answers = self._known[name].writing
            at = len(answers)  # answers nest: what was let pass ends first
            answers.append(0)

        def told(tokens: int) -> None:
            answers[at] = tokens

        try:
            yield told
        finally:
            with self._lock:
                answers.pop()

    def release(self, idle_seconds: float) -> int:
        """Forget models that nobody uses, and has not during this time; returns how many."""
        before = time.monotonic() - idle_seconds
        gone = []
        with self._lock:
            for name, known in self._known.items():
                if known.vlm is not None and not known.users and known.used <= before:
                    known.vlm = None
                    gone.append(name)
        for name in gone:
            log.info("%s is released", name)
        return len(gone)

    def status(self) -> tuple[VlmStatus, ...]:
        """Those that were asked for, by name."""
        now = time.monotonic()
        with self._lock:
            return tuple(
                VlmStatus(
                    name,
                    known.version,
                    known.vlm is not None,
                    known.nbytes,
                    0.0 if known.users else now - known.used,
                    known.writing[-1] if known.writing else None,
                )
                for name, known in sorted(self._known.items())
            )

    def _loaded(self, name: str, until: float) -> Vlm:
        with self._lock:
            known = self._known[name]
            if known.vlm is not None:
                return known.vlm
            loading = self._loading.get(name)
            if loading is None:
                loading = self._loading[name] = Future()
                # on a thread of its own: it may take longer than anybody waits
                threading.Thread(target=self._make, args=(name, loading), name="tator-vlm", daemon=True).start()
        try:
            patience = until - time.monotonic()
            return loading.result(None if patience == float("inf") else max(patience, 0.0))
        except FutureTimeout:
            raise EngineError(f"{name} is still being loaded; ask again in a moment.") from None

    def _make(self, name: str, loading: Future[Vlm]) -> None:
        begun = time.monotonic()
        try:
            with self._one_at_a_time:
                if self.release(0.0):
                    give_back()
                vlm = self._load(name)
        except BaseException as error:
            with self._lock:
                del self._loading[name]
            loading.set_exception(_told(name, error))
            return
        with self._lock:
            known = self._known[name]
            known.vlm, known.version, known.nbytes, known.used = vlm, vlm.version, vlm.nbytes, time.monotonic()
            del self._loading[name]
        log.info("%s loaded in %.1f s: %s", name, time.monotonic() - begun, vlm.version)
        loading.set_result(vlm)


def registered_vlms(settings: Settings, device: str) -> Vlms:
    """Models by the names that the registry resolves, loaded on the device of the settings, or else on ``device``."""

    def load(name: str) -> Vlm:
        from tator_ml.vlm.loading import load_vlm  # transformers and peft take seconds: not before they are needed

        try:
            entry = qwen_registry(settings).resolve(None if name == settings.qwen_model_name else name)
        except QwenRegistryError as error:
            raise EngineError(
                f"The engine has no model '{name}' under {settings.home / 'qwen'}; where it runs on another host than "
                "the training did, copy the model's folder there."
            ) from error
        on = device if settings.qwen_device == "auto" else settings.qwen_device
        tuned = entry.metadata
        return load_vlm(
            settings,
            entry.model_id,
            on,
            entry.adapter,
            tuned.id if tuned else None,
            tuned.max_image_dim if tuned else None,
        )

    return Vlms(load)


def _told(name: str, error: BaseException) -> BaseException:
    """What whoever asked is told of a failure to load."""
    if isinstance(error, TatorError) or is_out_of_memory(error):
        return error
    if isinstance(error, ImportError):
        return EngineError(f"{name} needs a package that is not installed: {error}.")
    log.error("%s could not be loaded", name, exc_info=error)
    return EngineError(f"{name} cannot be loaded: {error}")
