"""Tator as a model of the ``label-studio-ml`` library, for those who run its server or its command.

The library (2.x, from its git repository; it is not on the registry) builds the class anew for every
request and wants a subclass of its base, so what is heavy is built once a process and the class only
hands over. Tator's own server needs none of this.

A ``model.py`` for ``label-studio-ml start`` is one line::

    from tator_ml.label_studio_ml import TatorModel
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from label_studio_ml.model import LabelStudioMLBase

from tator_ml.backend import Result, TatorBackend
from tator_ml.engine.messages import EngineError
from tator_ml.services import Services, build_services
from tator_sdk.settings import Settings

_BUILDING = threading.Lock()


@lru_cache(maxsize=1)
def _built() -> Services:
    return build_services(Settings())


def shared_services() -> Services:
    """The process's services, built from the environment at the first request, however many come at once."""
    with _BUILDING:
        return _built()


class TatorModel(LabelStudioMLBase):  # type: ignore[misc]
    """The 2.x contract, answered by :class:`TatorBackend`."""

    def setup(self) -> None:
        """Tell the library which models answer; its cache is asked by ``/setup``."""
        try:
            version = shared_services().engine.status().model_version
        except EngineError:  # an engine that is away must not keep Label Studio from connecting
            return
        if version:
            self.set("model_version", version)

    def predict(
        self, tasks: Sequence[Mapping[str, Any]], context: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> list[Result]:
        """One answer for each task; ``context`` is empty or None for batches."""
        return self._backend().predict(tasks, context or None, **kwargs)

    def fit(self, event: str, data: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Take note of an event."""
        return self._backend().fit(event, data, **kwargs)

    def _backend(self) -> TatorBackend:
        return TatorBackend(self.project_id, self.label_config, shared_services())
