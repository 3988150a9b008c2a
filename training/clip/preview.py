"""What a training would learn from, without training: ``tator train clip --dry-run``."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tator_sdk.requests import HeadTraining
from training.clip.dataset import BACKGROUND, Dataset, with_background
from training.clip.learn import TooFewExamples
from training.clip.split import split_by_image


@dataclass(frozen=True)
class Preview:
    """A data set, counted.

    Attributes:
        boxes: of each class, in the classes' order.
        held_out: boxes of each class that would be held out.
        too_few: classes that would be left out.
        pictures: with boxes that would be used; ``pictures_held_out`` of them held out.
        notes: what is left out already, and what the split did, in sentences.
    """

    boxes: dict[str, int]
    held_out: dict[str, int]
    too_few: tuple[str, ...]
    pictures: int
    pictures_held_out: int
    notes: tuple[str, ...]


def preview(dataset: Dataset, request: HeadTraining) -> Preview:
    """Count what a training with this request would use and hold out."""
    dataset = with_background(dataset, request.background if dataset.items else 0, request.seed)
    counts = Counter(item.label for item in dataset.items)
    names = [*dataset.classes, *sorted(set(counts) - set(dataset.classes))]
    used = [item for item in dataset.items if counts[item.label] >= request.min_per_class]
    images = [item.box.image for item in used]
    labels = [item.label for item in used]
    out, said = split_by_image(images, labels, request.test_share, request.seed, request.min_per_class)
    held = Counter(labels[row] for row in np.flatnonzero(out))
    return Preview(
        {name: counts[name] for name in names},
        {name: held[name] for name in names},
        tuple(name for name in names if counts[name] < request.min_per_class),
        len(set(images)),
        len({images[row] for row in np.flatnonzero(out)}),
        (*dataset.notes, *said),
    )


def too_few(found: Preview, request: HeadTraining) -> str:
    """Why a training would refuse this data set; empty where it would not."""
    real = [name for name in found.boxes if name not in found.too_few and name != BACKGROUND]
    background = found.boxes.get(BACKGROUND, 0) >= request.min_per_class
    if real and len(real) + background >= 2:
        return ""
    return (
        f"A head needs at least two classes with {request.min_per_class} examples each; there are {len(real)}: "
        "label a few more objects and train again."
    )


def show_preview(found: Preview, request: HeadTraining, console: Console) -> None:
    """Print the counts and every line and picture that is left out.

    Raises:
        TooFewExamples: a training would refuse this data set.
    """
    table = Table("class", box=None, pad_edge=False)
    for name in ("boxes", "learned", "held out"):
        table.add_column(name, justify="right")
    table.add_column("")
    for name, count in found.boxes.items():
        left = name in found.too_few
        said = f"[yellow]left out: fewer than {request.min_per_class}[/]" if left else ""
        learned = 0 if left else count - found.held_out[name]
        table.add_row(escape(name), str(count), str(learned), str(found.held_out[name]), said)
    held_out, learned = sum(found.held_out.values()), 0
    learned = sum(count for name, count in found.boxes.items() if name not in found.too_few) - held_out
    table.add_section()
    table.add_row("[bold]all[/]", str(sum(found.boxes.values())), str(learned), str(held_out), "")
    console.print(table)
    console.print(
        f"{found.pictures} pictures with boxes, {found.pictures_held_out} of them held out. Nothing was trained."
    )
    if found.notes:
        console.print(f"{len(found.notes)} notes:" if len(found.notes) > 1 else "1 note:")
    for note in found.notes:
        console.print(f"  {escape(note)}", soft_wrap=True)
    if problem := too_few(found, request):
        raise TooFewExamples(problem)
