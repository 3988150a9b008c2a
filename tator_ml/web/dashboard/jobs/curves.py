"""The points that a job tells on its way, as plots: in one what belongs together, on the axis that they name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tator_ml.web.dashboard.plots import Plot, Series, line_plot

AXES = ("step", "iteration", "epoch", "round")
"""Names of what a point stands at, the best first; without one, points are counted."""
WAYS = (("validation_", "validation"), ("val_", "validation"), ("held_out_", "held out"), ("train_", "training"))
SCORES = {
    "ap": "AP", "ap50": "AP50", "ap75": "AP75", "ar": "AR", "map50": "mAP@0.5", "f1": "F1", "macro_f1": "macro F1",
    "mean_iou": "mean IoU", "label_f1": "label F1", "accuracy": "accuracy", "precision": "precision",
    "recall": "recall",
}  # fmt: skip
OTHERS = {
    "rate": "Learning rate", "gradient": "Norm of the gradient", "loss_change": "Change of the loss",
    "coefficient_change": "Largest change of a coefficient",
}  # fmt: skip
MOST_PLOTS = 8


@dataclass
class _Group:
    caption: str
    score: bool = False
    lines: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)

    def add(self, name: str, x: float, y: float) -> None:
        places, values = self.lines.setdefault(name, ([], []))
        if places and places[-1] >= x:  # a later attempt went back to a checkpoint, and tells these steps again
            kept = next(place for place, known in enumerate(places) if known >= x)
            del places[kept:], values[kept:]
        places.append(x)
        values.append(y)


def curves(points: Sequence[dict[str, Any]]) -> list[Plot]:
    """Plots of a job's points; none where it told no numbers."""
    axis = next((name for name in AXES if any(name in one for one in points)), None)
    groups: dict[str, _Group] = {}
    for count, point in enumerate(points, 1):
        x = point.get(axis, count) if axis else count
        if not _number(x):
            continue
        for name, value in point.items():
            if name not in AXES and _number(value):
                key, caption, line = _placed(name)
                groups.setdefault(key, _Group(caption, key == "score")).add(line, x, value)
    return [
        line_plot(
            f"curve-{place}", group.caption, [Series(name, x, y) for name, (x, y) in group.lines.items()],
            x=axis or "point", y_range=(0, 1.02) if group.score and _shares(group) else None,
        )
        for place, group in enumerate(sorted(groups.values(), key=lambda one: not one.score)[:MOST_PLOTS])
    ]  # fmt: skip


def _placed(name: str) -> tuple[str, str, str]:
    """Group, its caption, and the line's name in it."""
    way, base = next(((said, name.removeprefix(start)) for start, said in WAYS if name.startswith(start)), ("", name))
    if base == "loss":
        return "loss", "Loss", way or "training"
    if base.startswith("loss_") and base not in OTHERS:
        return "loss parts", "Parts of the loss", base.removeprefix("loss_").replace("_", " ")
    if base in SCORES:
        return "score", "Quality, where 1 is perfect", f"{SCORES[base]}, {way}" if way else SCORES[base]
    said = OTHERS.get(base, base.replace("_", " ").capitalize())
    return base, said, way or said


def _shares(group: _Group) -> bool:
    return all(0 <= one <= 1 for _, values in group.lines.values() for one in values)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
