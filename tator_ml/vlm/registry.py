"""Every Qwen that was tuned, beside the base model: runs (runs.py) below ``home/qwen``.

The weights of one are an ``adapter`` over the base model, or a whole ``model``; with them is kept how it is asked.
Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tator_ml.projects import Projects, project_choices
from tator_ml.runs import Entry, Metadata, RunError, RunRegistry
from tator_ml.vlm.prompts import DEFAULT_TEMPLATE, PromptStyle
from tator_sdk.settings import Settings

ADAPTER, WHOLE = "adapter", "model"


class QwenRegistryError(RunError):
    """A tuned model cannot be found, taken in or given out; the message is for a person."""


@dataclass(frozen=True, kw_only=True)
class RunMetadata(Metadata):
    """What ``metadata.json`` of a Qwen holds, under the names that the original gave it, and a few of our own.

    Attributes:
        system_prompt: the system message it was trained with.
        system_prompt_noise: share of its characters that were dropped in training, 0 to 0.3.
        dataset_context: a sentence about the pictures that goes with every prompt (``{extra_context}``).
        use_qlora: whether the base stood in 4 bits while the adapter was trained.
        max_image_dim: longest side of a picture in training, pixels.
        max_detections_per_sample: most objects that one answer had.
        latest_checkpoint: ``adapter`` or ``model``.
        method: ``lora``, ``qlora`` or ``whole``.
        image_type: what the pictures are (``{image_type}``).
        template: of the user message.
    """

    system_prompt: str
    system_prompt_noise: float
    dataset_context: str
    use_qlora: bool
    max_image_dim: int
    max_detections_per_sample: int
    method: str = "lora"
    image_type: str = "image"
    template: str = DEFAULT_TEMPLATE


@dataclass(frozen=True, kw_only=True)
class QwenEntry(Entry[RunMetadata]):
    """A model that can be asked in words; under an adapter, ``model_id`` is the base.

    Attributes:
        adapter: folder of the LoRA adapter (peft's layout); None without one.
        style: how it is asked: system prompt, template, image type, context.
    """

    adapter: Path | None = None
    style: PromptStyle = field(default_factory=PromptStyle)

    @property
    def weights(self) -> Path:
        """See :class:`Entry`."""
        return self.adapter or Path(self.model_id)


class QwenRegistry(RunRegistry[RunMetadata, QwenEntry]):
    """See :class:`RunRegistry`."""

    role = "qwen"
    title = "Qwen"
    error = QwenRegistryError
    metadata_type = RunMetadata
    figures = {  # noqa: RUF012
        "map50": "mAP@0.5",
        "f1": "F1",
        "precision": "precision",
        "recall": "recall",
        "mean_iou": "mean IoU",
        "label_f1": "label F1",
    }

    def published(self, name: str, model_id: str, label: str, description: str = "") -> QwenEntry:
        """See :meth:`RunRegistry.published`."""
        return QwenEntry(id=name, model_id=model_id, label=label, description=description)

    def read(self, folder: Path, metadata: RunMetadata, metrics: Mapping[str, Any]) -> QwenEntry:
        """See :meth:`RunRegistry.read`."""
        whole = metadata.latest_checkpoint == WHOLE
        return QwenEntry(
            id=metadata.id,
            model_id=str(folder / WHOLE) if whole else metadata.model_id,
            adapter=None if whole else folder / ADAPTER,
            style=style_of(metadata),
            classes=metadata.classes,
            metrics=metrics,
            description=metadata.description,
            label=metadata.label,
            project=metadata.project,
            folder=folder,
            metadata=metadata,
        )


def qwen_registry(settings: Settings, projects: Projects | None = None) -> QwenRegistry:
    """The registry of an installation; ``projects`` are the choices of a process that has read them already."""
    return QwenRegistry(settings.home / "qwen", projects or project_choices(settings), settings.qwen_model_name)


def style_of(metadata: RunMetadata) -> PromptStyle:
    """How a run is asked: as it was trained."""
    return PromptStyle(metadata.system_prompt, metadata.template, metadata.image_type, metadata.dataset_context)
