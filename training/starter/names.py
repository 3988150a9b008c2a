"""What people read where a scene says ``star``: labels in Label Studio, classes of the head."""

from __future__ import annotations

from training.starter.scenes import CLASSES

DISPLAY_NAMES: dict[str, str] = {shape: shape.capitalize() for shape in CLASSES}


def display_name(shape: str) -> str:
    """The name of a shape, one of ``CLASSES``, as people read it."""
    return DISPLAY_NAMES[shape]
