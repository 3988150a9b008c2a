"""What a build made of a task → a prediction on it: polygons, or rotated rectangles."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from label_config.interface import Control, Interface
from tator_sdk.errors import TatorError
from tator_sdk.geometry import Ring, RotatedBox
from tator_sdk.regions import Region, box_value, labelled_regions
from training.segmentation.source import SourcePicture
from training.segmentation.trace import Traced


def output_of(interface: Interface, image_name: str, oriented: bool) -> Control:
    """The tag of a picture that takes what a build makes.

    Raises:
        TatorError: there is none; the sentence says what to add.
    """
    gives, tag = ("box", "RectangleLabels") if oriented else ("polygon", "PolygonLabels")
    found = next((one for one in interface.outputs_for(image_name) if one.gives == gives and one.labels), None)
    if found is None:
        raise TatorError(
            f"The labelling configuration has no <{tag}> for '{image_name}' to push to; add one, or leave --push out."
        )
    return found


def regions_of(picture: SourcePicture, made: Sequence[Traced], interface: Interface, oriented: bool) -> list[Region]:
    """The regions of one picture; a part each, as Label Studio's polygons have one ring and no holes."""
    output = output_of(interface, picture.image_name, oriented)
    regions: list[Region] = []
    for number, one in enumerate(made):
        label = picture.drawn[one.drawn].label
        named = label if label in {each.value for each in output.labels} else interface.find_label(output, label)
        if named is None:
            continue
        for part, value in enumerate(_values(one, picture.size_wh)):
            about = f"{picture.task}:{picture.image_name}:{picture.item_index}:{number}:{part}"
            written = labelled_regions(
                output,
                picture.image_name,
                hashlib.sha256(about.encode()).hexdigest()[:10],
                value,
                [named],
                picture.size_wh,
                score=one.quality,
                info=[f"box kept: {one.kept}"] if one.kept else [],
            )
            place = {"item_index": picture.item_index} if picture.item_index else {}
            regions += [{**each, **place} for each in written]
    return regions


def prediction_of(task: int, regions: Sequence[Region], version: str) -> dict[str, Any]:
    """A task's prediction; its score is the mean of its regions'."""
    scores = [float(one["score"]) for one in regions if "score" in one]
    score = round(float(np.mean(scores)), 4) if scores else 0.0
    return {"task": task, "result": list(regions), "score": score, "model_version": version}


def _values(one: Traced, size_wh: tuple[int, int]) -> Iterator[dict[str, Any]]:
    if isinstance(one.shape, RotatedBox):
        yield dict(box_value(one.shape, size_wh))
        return
    for ring in one.shape.parts:
        yield {"points": _percent(ring, size_wh), "closed": True}


def _percent(ring: Ring, size_wh: tuple[int, int]) -> list[list[float]]:
    return [[float(x), float(y)] for x, y in ring * (100 / np.array(size_wh, np.float64))]
