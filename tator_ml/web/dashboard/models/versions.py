"""Every model that a project can have, heads and tuned models alike, as pages show them."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from tator_ml.launch import JOB_KINDS
from tator_ml.learning.registry import HeadEntry
from tator_ml.projects import Role
from tator_ml.reports import part, rows
from tator_ml.runs import Entry
from tator_ml.sam3.registry import Sam3Entry
from tator_ml.vlm.registry import QwenEntry
from tator_ml.web.dashboard.forms import changed_fields

ROLES: tuple[Role, ...] = ("head", "qwen", "sam3")
TITLES: Mapping[str, str] = {"head": "Class head", "qwen": "Qwen", "sam3": "SAM 3"}
KINDS: Mapping[Role, str] = {"head": "clip", "qwen": "qwen", "sam3": "sam3"}
"""Kind of job that trains each."""
HEAD_FIGURES: Mapping[str, str] = {
    "macro_f1": "macro-F1",
    "accuracy": "accuracy",
    "answered": "share answered",
    "precision_of_answers": "right of the answers",
    "calibration_error": "calibration error",
}
LESS_IS_BETTER = frozenset({"calibration_error"})


@dataclass(frozen=True, kw_only=True)
class Version:
    """A model that a project can have.

    Attributes:
        role: ``head``, ``qwen`` or ``sam3``.
        id: in its registry; ``base`` for the installation's own.
        label: a name for people, as ``description``.
        description: a sentence.
        project: that it was trained for.
        created: seconds since the epoch; None for a base.
        classes: that it knows.
        figures: on its held-out pictures, by name.
        gate: what the gate said after its training.
        request: that it was trained by, JSON values.
        metrics: all that its training wrote down.
        folder: of its files; None for a base.
        facts: what else there is to say, by title.
        entry: of its registry.
    """

    role: Role
    id: str
    label: str = ""
    description: str = ""
    project: int | None = None
    created: float | None = None
    classes: tuple[str, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict, hash=False)
    gate: Mapping[str, Any] = field(default_factory=dict, hash=False)
    request: Mapping[str, Any] = field(default_factory=dict, hash=False)
    metrics: Mapping[str, Any] = field(default_factory=dict, hash=False)
    folder: Path | None = None
    facts: Mapping[str, Any] = field(default_factory=dict, hash=False)
    entry: HeadEntry | Entry[Any] | None = field(default=None, hash=False, repr=False)

    @property
    def key(self) -> str:
        """Names it in forms: ``head:head-p3-2-0a1b2c``."""
        return f"{self.role}:{self.id}"

    @property
    def main(self) -> float | None:
        """The figure that stands in lists."""
        return cast("float | None", next(iter(self.figures.values()), None))

    @property
    def decision(self) -> str:
        """What the gate said, in a few words; empty where none was asked."""
        if not self.gate:
            return ""
        return "good" if self.gate.get("activate") else "held back"

    @property
    def pictures(self) -> int | None:
        """Held-out pictures that the gate's figures rest on."""
        return self.gate.get("images" if self.role == "head" else "pictures")

    @property
    def learned_from(self) -> str:
        """``412 boxes in 60 pictures`` or ``120 pictures``; empty where it is not known."""
        if self.role == "head":
            training = part(self.metrics, "training")
            return f"{training['boxes']} boxes in {training.get('images')} pictures" if "boxes" in training else ""
        counts = part(self.metrics, "pictures")
        return f"{counts['train']} pictures" if "train" in counts else ""

    @property
    def changed_settings(self) -> list[tuple[str, str, str]]:
        """Settings of its training that differ from the defaults: label, value, default."""
        model = next(one.model for one in JOB_KINDS if one.kind == KINDS[self.role])
        try:
            known = {name: value for name, value in self.request.items() if name in model.model_fields}
            return changed_fields(model.model_validate(known)) if known else []
        except ValidationError:  # of another version of Tator
            return [(name, str(value), "") for name, value in self.request.items() if value is not None]

    def held_out(self) -> frozenset[str]:
        """Content hashes of the pictures that it was measured on; reads a file."""
        try:
            examples = self.entry.examples() if self.entry is not None else []
        except (OSError, ValueError):
            examples = []
        return frozenset(str(one.get("image")) for one in examples if one.get("held_out"))


def of_head(entry: HeadEntry) -> Version:
    """A head of the registry."""
    report = entry.report
    held_out = part(report, "metrics", "held_out")
    classes = tuple(str(one.get("class")) for one in rows(held_out, "per_class") if isinstance(one, Mapping))
    request = part(report, "request")
    source = f"from {report['imported_from']}" if report.get("imported_from") else ""
    measured = {name: held_out[name] for name in HEAD_FIGURES if held_out.get(name) is not None}
    return Version(
        role="head",
        id=entry.version,
        label="",
        description=source,
        project=entry.project,
        created=entry.created,
        classes=classes,
        figures=measured if held_out.get("boxes") else {},
        gate=part(report, "gate"),
        request=request,
        metrics=part(report, "metrics"),
        folder=entry.folder,
        facts={"Imported": source, "Job": report.get("job"), "Notes": rows(report, "notes")},
        entry=entry,
    )


def facts_of_head(version: Version) -> dict[str, Any]:
    """What stands beside a head's weights; reads a file."""
    about = version.entry.about() if isinstance(version.entry, HeadEntry) else {}
    if not about:
        return {}
    recipe = part(about, "recipe")
    crop = f"{'square' if recipe.get('square') else 'as drawn'}, margin {recipe.get('margin')}"
    metrics = version.metrics
    return {
        "Encoder": about.get("encoder_name"),
        "Crop": crop if recipe else "",
        "Classes": ", ".join(map(str, rows(about, "label_map"))),
        "Answers from a probability of": about.get("threshold"),
        "… with a lead of": about.get("margin"),
        "Temperature": about.get("temperature"),
        "Of its answers should be right": metrics.get("expected_precision"),
        "Of known objects get an answer": metrics.get("expected_answered"),
    }


def of_run(entry: Entry[Any], role: Role, names: Mapping[str, str]) -> Version:
    """A base or a run of a registry; ``names`` of its figures."""
    metadata = entry.metadata
    metrics = dict(entry.metrics or {})
    candidate = part(metrics, "gate", "candidate")
    return Version(
        role=role,
        id=entry.id,
        label=entry.label,
        description=entry.description,
        project=entry.project,
        created=_moment(metadata.created_at) if metadata else None,
        classes=entry.classes,
        figures={name: candidate[name] for name in names if candidate.get(name) is not None},
        gate=part(metrics, "gate"),
        request=dict(metadata.trained_by or {}) if metadata else {},
        metrics=metrics,
        folder=entry.folder,
        facts=_facts_of_run(entry),
        entry=entry,
    )


def _facts_of_run(entry: Entry[Any]) -> dict[str, Any]:
    metadata, facts = entry.metadata, dict[str, Any]()
    if metadata is not None:
        facts |= {"Base": metadata.model_id, "Method": metadata.method, "Data": metadata.source_dataset}
        facts |= {"Classes": ", ".join(entry.classes), "Job": (entry.metrics or {}).get("job")}
        facts |= {"Notes": rows(entry.metrics or {}, "notes")}
    else:
        facts |= {"Model": entry.model_id}
    if isinstance(entry, QwenEntry):
        style = entry.style
        facts |= {"System prompt": style.system_prompt, "Prompt": style.template, "Pictures are": style.image_type}
        facts |= {"Context": style.extra_context}
    if isinstance(entry, Sam3Entry) and entry.metadata is not None:
        said = [f"{name}: {' | '.join(phrases)}" for name, phrases in entry.phrases.items()]
        facts |= {"Phrases": "\n".join(said), "Learned": "boxes and masks" if entry.metadata.masks else "boxes"}
        facts |= {"Resolution": f"{entry.metadata.resolution} pixels"}
    return facts


def _moment(iso: str) -> float | None:
    try:
        return datetime.datetime.fromisoformat(iso).timestamp()
    except ValueError:
        return None
