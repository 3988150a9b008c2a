"""How each family of models writes places in a picture, and the way there and back.

A picture is resized before a model sees it, each side by a factor of its own (to a multiple of the patches), so x and y
are scaled apart. Qwen2.5-VL writes pixels of that resized input; Qwen3-VL thousandths of the picture's width and height
(Qwen2.5-VL technical report, section 2.1.2; the Qwen3-VL cookbook "2d_grounding").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar, overload

from tator_sdk.errors import TatorError
from tator_sdk.geometry import Xyxy

Xy = tuple[float, float]
Place = TypeVar("Place", Xyxy, Xy)


class UnknownFamily(TatorError):
    """Nobody has said how this kind of model writes coordinates."""


@dataclass(frozen=True)
class Coordinates:
    """The convention of one family.

    Attributes:
        family: ``model_type`` of the model's ``config.json``.
        full_scale: what the picture's far edges are written as, on both axes; None where places are pixels of the
            resized input.
    """

    family: str
    full_scale: float | None = None

    @overload
    def to_picture(self, values: Xyxy, picture_wh: tuple[int, int], input_wh: tuple[int, int]) -> Xyxy: ...
    @overload
    def to_picture(self, values: Xy, picture_wh: tuple[int, int], input_wh: tuple[int, int]) -> Xy: ...
    def to_picture(
        self, values: Xyxy | Xy, picture_wh: tuple[int, int], input_wh: tuple[int, int]
    ) -> tuple[float, ...]:
        """A box (x1, y1, x2, y2) or point (x, y) as the model writes it → pixels of the picture, not clamped.

        Args:
            values: in the model's coordinates.
            picture_wh: width and height of the picture as the annotator sees it.
            input_wh: width and height of what the model saw, see :func:`input_wh`.
        """
        scale = self._scale(input_wh)
        return tuple(value * picture_wh[at % 2] / scale[at % 2] for at, value in enumerate(values))

    @overload
    def from_picture(self, values: Xyxy, picture_wh: tuple[int, int], input_wh: tuple[int, int]) -> Xyxy: ...
    @overload
    def from_picture(self, values: Xy, picture_wh: tuple[int, int], input_wh: tuple[int, int]) -> Xy: ...
    def from_picture(
        self, values: Xyxy | Xy, picture_wh: tuple[int, int], input_wh: tuple[int, int]
    ) -> tuple[float, ...]:
        """A box or point in pixels of the picture → the model's coordinates, not rounded; see :meth:`to_picture`."""
        scale = self._scale(input_wh)
        return tuple(value * scale[at % 2] / picture_wh[at % 2] for at, value in enumerate(values))

    def _scale(self, input_wh: tuple[int, int]) -> tuple[float, float]:
        return (self.full_scale, self.full_scale) if self.full_scale else (float(input_wh[0]), float(input_wh[1]))


FAMILIES: Mapping[str, Coordinates] = MappingProxyType(
    {
        family.family: family
        for family in (
            Coordinates("qwen2_5_vl"),
            Coordinates("qwen3_vl", full_scale=1000),
            Coordinates("qwen3_vl_moe", full_scale=1000),
        )
    }
)
"""By ``model_type``."""


def coordinates_of(model_type: str) -> Coordinates:
    """The convention of a model, by the ``model_type`` of its ``config.json``.

    Raises:
        UnknownFamily: it is none of those Tator knows.
    """
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    raise UnknownFamily(
        f'Tator does not know how a model of type "{model_type}" writes coordinates; take one of {", ".join(FAMILIES)}.'
    )


def input_wh(image_grid_thw: Sequence[int], patch_size: int) -> tuple[int, int]:
    """Width and height in pixels of what a model saw: the processor's grid of patches (frames, rows, columns)."""
    _, rows, columns = (int(count) for count in image_grid_thw)
    return columns * patch_size, rows * patch_size
