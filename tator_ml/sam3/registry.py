"""Every SAM 3 that was tuned, beside the base model: runs (runs.py) below ``home/sam3``.

The weights of one are a whole ``model`` in the published layout, detector and tracker, so that it answers phrases,
exemplars and clicks alike. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from tator_ml.projects import SAM3, Projects, project_choices
from tator_ml.runs import BASE, Entry, Metadata, RunError, RunRegistry
from tator_sdk.settings import Settings

MODEL = "model"
"""Folder of a run's weights, its configuration and its processor."""


class Sam3RegistryError(RunError):
    """A tuned SAM 3 cannot be found, taken in or given out; the message is for a person."""


@dataclass(frozen=True, kw_only=True)
class Sam3Metadata(Metadata):
    """What ``metadata.json`` of a SAM 3 holds.

    Attributes:
        phrases: of each class, those that it was trained with; the first is the one it was measured by.
        resolution: side of the square that pictures were stretched to, pixels.
        masks: whether masks were learned too, or boxes alone.
    """

    phrases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    resolution: int = 0
    masks: bool = False

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """See :meth:`Metadata.from_json`."""
        found = super().from_json(values)
        return replace(found, phrases={name: tuple(said) for name, said in found.phrases.items()})


@dataclass(frozen=True, kw_only=True)
class Sam3Entry(Entry[Sam3Metadata]):
    """A SAM 3 that finds objects by phrases and exemplars."""

    @property
    def phrases(self) -> Mapping[str, tuple[str, ...]]:
        """Of each class it was trained on; empty for a base."""
        return self.metadata.phrases if self.metadata else {}


class Sam3Registry(RunRegistry[Sam3Metadata, Sam3Entry]):
    """See :class:`RunRegistry`."""

    role = "sam3"
    title = "SAM 3"
    error = Sam3RegistryError
    metadata_type = Sam3Metadata
    figures = {"ap50": "AP50", "ap": "AP", "ap75": "AP75", "ar": "AR"}  # noqa: RUF012

    def published(self, name: str, model_id: str, label: str, description: str = "") -> Sam3Entry:
        """See :meth:`RunRegistry.published`."""
        return Sam3Entry(id=name, model_id=model_id, label=label, description=description)

    def read(self, folder: Path, metadata: Sam3Metadata, metrics: Mapping[str, Any]) -> Sam3Entry:
        """See :meth:`RunRegistry.read`."""
        return Sam3Entry(
            id=metadata.id,
            model_id=str(folder / MODEL),
            classes=metadata.classes,
            metrics=metrics,
            description=metadata.description,
            label=metadata.label,
            project=metadata.project,
            folder=folder,
            metadata=metadata,
        )

    def entry(self, name: str) -> Sam3Entry:
        """See :meth:`RunRegistry.entry`; ``sam3``, which the segmenter is chosen by, is the base."""
        return super().entry(BASE if name == SAM3 else name)

    def resolve(self, name: str | None) -> Sam3Entry:
        """See :meth:`RunRegistry.resolve`; ``sam3``, which the segmenter is chosen by, is the base."""
        return super().resolve(None if name == SAM3 else name)

    def check_weights(self, entry: Sam3Entry) -> str:
        """See :meth:`RunRegistry.check_weights`; the configuration must be there too."""
        if entry.folder is not None and not (entry.weights / "config.json").is_file():
            raise self.error(f"{entry.weights / 'config.json'} of {entry.id} is missing; bring back its folder.")
        return super().check_weights(entry)


def sam3_registry(settings: Settings, projects: Projects | None = None) -> Sam3Registry:
    """The registry of an installation; ``projects`` are the choices of a process that has read them already."""
    return Sam3Registry(settings.home / "sam3", projects or project_choices(settings), settings.sam3_model_id)
