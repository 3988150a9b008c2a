"""What a training was begun with, kept in its job's folder: what promoting one of its checkpoints needs to know."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tator_ml.sam3.registry import MODEL, Sam3Metadata
from tator_sdk import files
from tator_sdk.errors import TatorError
from tator_sdk.sam3_request import Sam3Training
from tator_sdk.settings import Settings

FILE, LOCK = "training.json", ".training"
PATIENCE_SECONDS = 2.0  # who only asks whether a training runs holds its lock for a moment


@dataclass(frozen=True)
class Begun:
    """A training as it began.

    Attributes:
        request: what was asked for, JSON values.
        base: folder of the model that is tuned.
        base_id: how that is called: a hub id, a folder, or a run's id.
        classes: that are learned.
        phrases: of each class.
        source: of the examples, in words.
        masks: whether masks are learned.
        resolution: side of the square that pictures are stretched to, pixels.
        examples: its pictures by content hash, and whether each is held out.
    """

    request: Mapping[str, Any]
    base: str
    base_id: str
    classes: tuple[str, ...]
    phrases: Mapping[str, tuple[str, ...]]
    source: str
    masks: bool
    resolution: int
    examples: tuple[Mapping[str, Any], ...]

    def write(self, folder: Path) -> None:
        """Keep it in a job's folder."""
        files.write_durably(folder / FILE, json.dumps(asdict(self)).encode())

    @classmethod
    def read(cls, folder: Path) -> Begun:
        """Of a job's folder.

        Raises:
            OSError, ValueError, TypeError: there is none, or something else.
        """
        kept = json.loads((folder / FILE).read_text())
        phrases = {name: tuple(said) for name, said in kept.pop("phrases").items()}
        classes, examples = tuple(kept.pop("classes")), tuple(kept.pop("examples"))
        return cls(classes=classes, phrases=phrases, examples=examples, **kept)

    def metadata(self, step: str) -> Sam3Metadata:
        """What ``metadata.json`` of a run will say; the registry fills in id and date.

        Args:
            step: which weights they are, in words.
        """
        request = Sam3Training.model_validate(self.request)
        names = f"{', '.join(self.classes[:3])}{' …' if len(self.classes) > 3 else ''}"
        learned = sum(not one["held_out"] for one in self.examples)
        what = "boxes and masks" if self.masks else "boxes"
        said = f"{request.method}, {what}, on {learned} pictures of {self.source}, {len(self.classes)} classes"
        return Sam3Metadata(
            id="",
            label=request.label or names,
            classes=self.classes,
            model_id=self.base_id,
            created_at="",
            latest_checkpoint=MODEL,
            source_dataset=self.source,
            method=request.method,
            description=request.description or f"{said}; {step}.",
            project=request.project,
            trained_by=self.request,
            phrases=self.phrases,
            resolution=self.resolution,
            masks=self.masks,
        )


def alone(folder: Path) -> AbstractContextManager[None]:
    """Let one process at a time train in a job's folder; the lock goes with the process, however it ends.

    Raises:
        TatorError: another one does, from the context's begin.
    """
    busy = f"Another process does this training already, in {folder}; wait for it or end it."
    return files.alone(folder / LOCK, busy, PATIENCE_SECONDS)


def is_training(folder: Path) -> bool:
    """Whether a process of this host trains in a job's folder."""
    if not folder.is_dir():
        return False
    try:
        with files.alone(folder / LOCK, "It trains."):
            return False
    except TatorError:
        return True
    except OSError:  # the folder may not be written
        return False


def trainings(settings: Settings) -> dict[str, Path]:
    """The folders of all jobs that began to tune a SAM 3, by job."""
    return {path.parent.name: path.parent for path in sorted((settings.home / "jobs").glob(f"*/{FILE}"))}
