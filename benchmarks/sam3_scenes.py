"""Scenes for a tiny SAM 3: a few coloured shapes on a textured ground, and phrases that name colour and shape.

Some combinations of the two are held out: no scene that is learned from shows or names them. A scene that is asked
about shows at least one of them, and beside it what is like it in colour or in shape alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tator_sdk.geometry import Xyxy
from training.samples import Labelled, Sample

SIDE = 96  # pixels
SHAPES = ("circle", "square", "triangle", "cross")
HUES = {
    "red": (215, 45, 40),
    "green": (50, 170, 60),
    "blue": (50, 85, 220),
    "yellow": (235, 205, 50),
    "white": (245, 245, 245),
}
COLOURS = tuple(HUES)
HELD_OUT = ("red triangle", "green cross", "blue circle", "yellow square")
"""Combinations that are never learned from."""
TRAINED = tuple(f"{hue} {shape}" for hue in COLOURS for shape in SHAPES if f"{hue} {shape}" not in HELD_OUT)
ALL = (*TRAINED, *HELD_OUT)
_SMALLEST, _LARGEST = 18, 36  # sides of objects, pixels
_MOST_OBJECTS = 5
_FINE = 3  # pixels drawn for each of the picture, so that edges are smooth


@dataclass(frozen=True, eq=False)
class Thing:
    """An object of a scene.

    Attributes:
        hue: one of :data:`COLOURS`.
        shape: one of :data:`SHAPES`.
        box: around it, pixels.
        mask: (SIDE, SIDE) bool, which pixels are its.
    """

    hue: str
    shape: str
    box: Xyxy
    mask: NDArray[np.bool_]

    @property
    def phrase(self) -> str:
        """What it is called: colour and shape."""
        return f"{self.hue} {self.shape}"


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture, (SIDE, SIDE, 3) uint8 RGB, and what is on it."""

    pixels: NDArray[np.uint8]
    things: tuple[Thing, ...]


Naming = Callable[[Thing], tuple[str, ...]]
"""What an object is labelled as; it may be several things."""


def as_shape(thing: Thing) -> tuple[str, ...]:
    """The same for all."""
    return ("shape",)


def by_word(thing: Thing) -> tuple[str, ...]:
    """Its colour, and its shape."""
    return thing.hue, thing.shape


def by_phrase(thing: Thing) -> tuple[str, ...]:
    """Both at once."""
    return (thing.phrase,)


def samples(seeds: range, held_out: bool = False, naming: Naming = by_phrase) -> tuple[Sample, ...]:
    """Scenes as a data set's pictures.

    Args:
        seeds: a scene each.
        held_out: see :func:`scene`.
        naming: of their objects.
    """
    found = []
    for seed in seeds:
        things = scene(seed, held_out).things
        objects = tuple(
            Labelled(name, one.box, ((one.box[0] + one.box[2]) / 2, (one.box[1] + one.box[3]) / 2))
            for one in things
            for name in naming(one)
        )
        found.append(Sample(f"scene-{held_out}-{seed}", partial(pixels, seed, held_out), (SIDE, SIDE), objects))
    return tuple(found)


def pixels(seed: int, held_out: bool = False) -> NDArray[np.uint8]:
    """A scene's picture."""
    return scene(seed, held_out).pixels


@lru_cache(8192)
def scene(seed: int, held_out: bool = False) -> Scene:
    """The scene of a seed; the same for ever.

    Args:
        seed: of whatever is drawn.
        held_out: show a combination of :data:`HELD_OUT`, and what is like it; none of them else.
    """
    rng = np.random.default_rng([seed, int(held_out)])
    picture = _ground(rng)
    things: list[Thing] = []
    for phrase in _phrases(rng, held_out):
        box = _place(rng, [one.box for one in things])
        if box is None:
            continue
        hue, shape = phrase.split()
        cover = _cover(shape, box)
        colour = np.clip(np.array(HUES[hue]) + rng.normal(0, 12, 3), 0, 255)
        shade = colour * (1 + rng.uniform(-0.12, 0.12) * np.linspace(-1, 1, SIDE)[:, None, None])
        picture = picture * (1 - cover[..., None]) + shade * cover[..., None]
        things.append(Thing(hue, shape, box, cover >= 0.5))
    noisy = picture + rng.normal(0, 4, picture.shape)
    return Scene(np.clip(noisy, 0, 255).astype(np.uint8), tuple(things))


def _phrases(rng: np.random.Generator, held_out: bool) -> list[str]:
    """What is on the scene: the first one, and others that are mostly like it in colour or shape."""
    pool = ALL if held_out else TRAINED
    first = str(rng.choice(HELD_OUT if held_out else TRAINED))
    hue, shape = first.split()
    alike = [one for one in pool if (hue in one) != (shape in one)]
    chosen = [first]
    for _ in range(int(rng.integers(1, _MOST_OBJECTS))):
        draw = rng.uniform()
        chosen.append(first if draw < 0.15 else str(rng.choice(alike if draw < 0.65 else pool)))
    return chosen


def _ground(rng: np.random.Generator) -> NDArray[np.float64]:
    """A dull ground with soft spots and stripes, (SIDE, SIDE, 3)."""
    level = rng.uniform(60, 140) + rng.normal(0, 8, 3)
    spots = Image.fromarray(rng.uniform(-25, 25, (6, 6)).astype(np.float32)).resize(
        (SIDE, SIDE), Image.Resampling.BICUBIC
    )
    rows, columns = np.mgrid[:SIDE, :SIDE]
    angle, wave = rng.uniform(0, np.pi), rng.uniform(0.15, 0.7)
    stripes = rng.uniform(0, 10) * np.sin(wave * (np.cos(angle) * rows + np.sin(angle) * columns))
    return level + (np.asarray(spots) + stripes)[..., None]


def _place(rng: np.random.Generator, taken: list[Xyxy]) -> Xyxy | None:
    """A box that stands clear of others; None where no room was found."""
    for _ in range(30):
        long = int(rng.integers(_SMALLEST, _LARGEST + 1))
        short = max(_SMALLEST, int(long * rng.uniform(0.75, 1.0)))
        width, height = (long, short) if rng.uniform() < 0.5 else (short, long)
        left, top = int(rng.integers(1, SIDE - width)), int(rng.integers(1, SIDE - height))
        box = (float(left), float(top), float(left + width), float(top + height))
        if all(box[0] > o[2] or box[2] < o[0] or box[1] > o[3] or box[3] < o[1] for o in taken):
            return box
    return None


def _cover(shape: str, box: Xyxy) -> NDArray[np.float64]:
    """(SIDE, SIDE) 0..1: how much of each pixel the shape covers."""
    canvas = Image.new("L", (SIDE * _FINE, SIDE * _FINE))
    draw = ImageDraw.Draw(canvas)
    left, top, right, bottom = (int(value) * _FINE for value in box)
    right, bottom = right - 1, bottom - 1  # PIL's far edges belong to the shape
    if shape == "circle":
        draw.ellipse((left, top, right, bottom), fill=255)
    elif shape == "square":
        draw.rectangle((left, top, right, bottom), fill=255)
    elif shape == "triangle":
        draw.polygon([(left, bottom), ((left + right) // 2, top), (right, bottom)], fill=255)
    else:
        third_x, third_y = (right - left) // 3, (bottom - top) // 3
        draw.rectangle((left + third_x, top, right - third_x, bottom), fill=255)
        draw.rectangle((left, top + third_y, right, bottom - third_y), fill=255)
    return np.asarray(canvas.reduce(_FINE), dtype=np.float64) / 255
