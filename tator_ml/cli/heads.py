"""How a class head looks in a terminal: its figures, its tables, what the gate said of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from tator_ml.reports import part, rows

if TYPE_CHECKING:
    from tator_ml.learning.confusion import Confusion
    from tator_ml.learning.registry import HeadEntry

MOST_CONFUSED = 12
"""Classes that a confusion matrix has room for."""
MOST_MIXED = 5
NONE = "-"


def figure(value: object, digits: int = 3) -> str:
    """A number to read, a dash where there is none."""
    return f"{value:.{digits}f}" if isinstance(value, (int, float)) and not isinstance(value, bool) else NONE


def percent(value: object) -> str:
    """A share to read."""
    return f"{100 * value:.1f} %" if isinstance(value, (int, float)) and not isinstance(value, bool) else NONE


def moment(seconds: float) -> str:
    """A time to read."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def held_out_macro_f1(report: Mapping[str, Any]) -> str:
    """Macro-F1 on the held-out boxes; a dash where none were held out."""
    held_out = part(report, "metrics", "held_out")
    return figure(held_out.get("macro_f1")) if held_out.get("boxes") else NONE


def decision_in_short(report: Mapping[str, Any]) -> str:
    """What the gate said, in a few words."""
    gate = part(report, "gate")
    candidate, active, majority, luck = (gate.get(name) or 0 for name in ("candidate", "active", "majority", "luck"))
    if not gate:
        return NONE
    if gate.get("activate"):
        return f"good: before {figure(active)}" if gate.get("active") is not None else "good"
    if gate.get("candidate") is None:
        return "nothing held out"
    if candidate <= majority:
        return "knows nothing"
    if candidate <= luck:
        return "may be luck"
    return f"worse than {figure(active)}"


def quality(entry: HeadEntry) -> str:
    """Both figures of the gate, with what they were measured on."""
    gate = part(entry.report, "gate")
    if gate.get("candidate") is None:
        return "No box was held out to measure it on."
    said = (
        f"macro-F1 {figure(gate['candidate'])} on {gate.get('boxes')} held-out boxes in {gate.get('images')} pictures"
    )
    if gate.get("active") is None:
        return f"{said}; there was no active head to compare with"
    return f"{said}; the active head {escape(str(gate.get('active_version')))} reached {figure(gate['active'])}"


def silence(entry: HeadEntry) -> str:
    """From where on it answers, and what to expect of that."""
    about, metrics = entry.about(), part(entry.report, "metrics")
    said = f"It answers from a probability of {figure(about.get('threshold'), 2)}"
    said += f" with a lead of {figure(about.get('margin'), 2)}"
    if metrics.get("expected_precision") is None:
        return f"{said}; how many answers will be right could not be told"
    right, answered = percent(metrics["expected_precision"]), percent(metrics.get("expected_answered"))
    return f"{said}: {right} of the answers should be right, {answered} of known objects get one"


def per_class_table(report: Mapping[str, Any], most: int | None = None) -> Table | None:
    """Precision, recall, F1 and support of each class, or of those with the lowest F1; None without figures."""
    found = [one for one in rows(part(report, "metrics", "held_out"), "per_class") if isinstance(one, dict)]
    if not found:
        return None
    table = Table("class", box=None, pad_edge=False)
    for name in ("precision", "recall", "F1", "held out"):
        table.add_column(name, justify="right")
    cut = most is not None and len(found) > most
    if cut:
        table.caption = f"the {most} weakest of {len(found)} classes"
        known = [one for one in found if one.get("f1") is not None]
        found = sorted(known, key=lambda one: float(one["f1"]))[:most]
    for one in found:
        shown = [figure(one.get(name)) for name in ("precision", "recall", "f1")]
        table.add_row(escape(str(one.get("class"))), *shown, str(one.get("support")))
    return table


def confusion(report: Mapping[str, Any]) -> Iterator[Table | str]:
    """The confusion matrix, cut to its most confused classes where it is big, and the commonest mix-ups."""
    from tator_ml.learning.confusion import confusion_of

    found = confusion_of(part(report, "metrics"), MOST_CONFUSED, MOST_MIXED)
    if found is None:
        return
    yield _matrix(found)
    if len(found.names) < found.classes:
        yield f"The {len(found.names)} most confused of {found.classes} classes; --json has them all."
    for pair in found.pairs:
        yield f"{pair.count} times '{escape(pair.true)}' taken for '{escape(pair.said)}'"


def _matrix(found: Confusion) -> Table:
    """Columns bear numbers, as names would not fit."""
    table = Table("", "true \\ said", box=None, pad_edge=False)
    for place in found.places:
        table.add_column(str(place + 1), justify="right")
    for name, place, row in zip(found.names, found.places, found.cells, strict=True):
        cells = [f"[bold green]{one.count}[/]" if one.right else str(one.count or "[dim]·[/]") for one in row]
        table.add_row(f"[dim]{place + 1}[/]", escape(name), *cells)
    return table
