"""Scenes that teach and test the starter models: shapes with exact masks, in difficult light.

A scene is drawn from its seed alone, so the same numbers give the same pictures on any machine.
What keeps a scene from being trivial: textured and shaded fills, backgrounds of the same kinds,
cast shadows, occlusion, touching pairs, clutter, camouflage, blur and noise. Where contrast is
guaranteed, flood fill beats any network, so contrast is not guaranteed here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float32]
Image = NDArray[np.uint8]
Field = NDArray[np.float32]


def _circle(radius: float = 1.0, count: int = 48) -> Points:
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return (radius * np.stack([np.cos(angles), np.sin(angles)], 1)).astype(np.float32)


def _radial(radii: list[float], turn: float = -np.pi / 2) -> Points:
    angles = turn + np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    return np.asarray(np.array(radii)[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1), np.float32)


def _heart() -> Points:
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return (np.stack([x, y + 2], 1) / 16).astype(np.float32)


def _drop() -> Points:
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    return np.stack([0.85 * np.sin(t) * np.sin(t / 2) ** 1.5, -np.cos(t)], 1).astype(np.float32)


def _moon() -> Points:
    outer = np.linspace(np.pi * 0.30, np.pi * 1.70, 36)
    inner = outer[::-1]
    rim = np.stack([np.cos(outer), np.sin(outer)], 1)
    bite = np.stack([0.42 + 0.72 * np.cos(inner), 0.81 * np.sin(inner)], 1)
    return np.asarray(np.concatenate([rim, bite]), np.float32)


def _cross(arm: float = 0.34) -> Points:
    a = arm
    corners = [(-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a), (a, 1), (-a, 1), (-a, a)]
    corners += [(-1, a), (-1, -a), (-a, -a)]
    return np.array(corners, np.float32)


def _arrow() -> Points:
    corners = [(1, 0), (0.1, -0.8), (0.1, -0.3), (-1, -0.3), (-1, 0.3), (0.1, 0.3), (0.1, 0.8)]
    return np.array(corners, np.float32)


# Outline(s) in the unit disc; later outlines are holes (even-odd rule).
SHAPES: dict[str, Callable[[], list[Points]]] = {
    "disc": lambda: [_circle()],
    "ring": lambda: [_circle(), _circle(0.52)],
    "square": lambda: [np.array([(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)], np.float32)],
    "triangle": lambda: [_radial([1.0, 1.0, 1.0])],
    "star": lambda: [_radial([1.0, 0.42] * 5)],
    "cross": lambda: [_cross()],
    "heart": lambda: [_heart()],
    "moon": lambda: [_moon()],
    "drop": lambda: [_drop()],
    "arrow": lambda: [_arrow()],
}
CLASSES = tuple(SHAPES)

COLORS_RGB: dict[str, tuple[int, int, int]] = {
    "red": (205, 45, 45),
    "orange": (235, 140, 35),
    "yellow": (232, 215, 70),
    "green": (60, 155, 70),
    "cyan": (60, 185, 195),
    "blue": (50, 80, 195),
    "purple": (140, 65, 170),
    "pink": (235, 140, 180),
    "brown": (120, 80, 50),
    "grey": (130, 130, 130),
    "white": (238, 238, 232),
    "black": (35, 35, 38),
}


@dataclass(frozen=True)
class SceneObject:
    """One object of a scene.

    Attributes:
        shape: one of ``CLASSES``.
        color: the name in ``COLORS_RGB`` its fill was varied from.
        xyxy: tight box of the visible part in pixels, right and bottom exclusive.
        visible: share of the object that nothing covers, 0 to 1.
        touches: index of the object it was placed against, or None.
    """

    shape: str
    color: str
    xyxy: tuple[int, int, int, int]
    visible: float
    touches: int | None


@dataclass(frozen=True)
class Scene:
    """A picture and what is in it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        instances: (H, W) uint8; 0 is background, i + 1 is ``objects[i]``.
        objects: only those that kept at least ``SceneSettings.min_visible`` of their area.
    """

    image: Image
    instances: Image
    objects: tuple[SceneObject, ...]

    def mask(self, index: int) -> NDArray[np.bool_]:
        """Visible pixels of ``objects[index]``, (H, W) bool."""
        return np.asarray(self.instances == index + 1)


@dataclass(frozen=True)
class SceneSettings:
    """How scenes are drawn; lengths are pixels of the finished picture."""

    size_wh: tuple[int, int] = (256, 256)
    min_side: int = 24
    max_side: int = 120
    objects: tuple[int, int] = (3, 8)
    min_visible: float = 0.55
    camouflage: float = 0.3
    pairs: float = 0.45


def _noise(rng: np.random.Generator, size_wh: tuple[int, int], cells: int) -> Field:
    """Smooth noise in 0..1, (H, W): a coarse random grid, enlarged."""
    grid = rng.random((cells, cells), dtype=np.float32)
    return cv2.resize(grid, size_wh, interpolation=cv2.INTER_CUBIC).clip(0, 1)


def _pattern(rng: np.random.Generator, size_wh: tuple[int, int], period: float) -> Field:
    """A field in 0..1 that mixes two colours of one surface, (H, W)."""
    width, height = size_wh
    kind = rng.choice(["plain", "stripes", "checker", "dots", "cloud", "grain", "gradient"])
    if kind == "plain":
        return np.zeros((height, width), np.float32)
    if kind == "cloud":
        return _noise(rng, size_wh, int(rng.integers(4, 24)))
    if kind == "grain":
        return rng.random((height, width), dtype=np.float32)
    angle = rng.uniform(0, np.pi)
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    u = xs * np.cos(angle) + ys * np.sin(angle)
    v = -xs * np.sin(angle) + ys * np.cos(angle)
    if kind == "gradient":
        return np.asarray((u - u.min()) / max(float(np.ptp(u)), 1.0), np.float32)
    wave = np.sin(2 * np.pi * u / period)
    if kind == "stripes":
        return np.asarray(wave > rng.uniform(-0.5, 0.5), np.float32)
    across = np.sin(2 * np.pi * v / period)
    if kind == "checker":
        return np.asarray(wave * across > 0, np.float32)
    return np.asarray(wave + across > 1.0, np.float32)


def _vary(rng: np.random.Generator, rgb: tuple[int, int, int], spread: float) -> Field:
    return (np.array(rgb, np.float32) + rng.normal(0, spread, 3)).clip(0, 255).astype(np.float32)


def _surface(rng: np.random.Generator, size_wh: tuple[int, int], base: Field, scale: float) -> Field:
    """A textured, unevenly lit surface around the colour ``base``, (H, W, 3) float 0..255."""
    other = (base + rng.normal(0, rng.choice([20, 45, 75]), 3)).clip(0, 255)
    mix = _pattern(rng, size_wh, rng.uniform(4, 16) * scale)[..., None]
    surface = base * (1 - mix) + other * mix
    light = 1 + rng.uniform(0, 0.35) * (_noise(rng, size_wh, 3)[..., None] - 0.5) * 2
    return (surface * light).astype(np.float32)


def _outline(rng: np.random.Generator, shape: str, side: float) -> list[Points]:
    """The shape turned, stretched and scaled so that its longer side is ``side`` pixels."""
    turn = rng.uniform(0, 2 * np.pi)
    stretch = np.diag([1.0, rng.uniform(0.72, 1.0)])
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    outlines = [points @ (stretch @ rotation).astype(np.float32) for points in SHAPES[shape]()]
    extent = float(np.ptp(outlines[0], axis=0).max())
    return [points * (side / extent) for points in outlines]


def _coverage(outlines: list[Points], center: Field, size_wh: tuple[int, int]) -> Field:
    """Anti-aliased coverage of the shape, (H, W) float 0..1."""
    width, height = size_wh
    canvas = np.zeros((height, width), np.uint8)
    shift = 4
    polygons = [np.round((points + center - 0.5) * (1 << shift)).astype(np.int32) for points in outlines]
    cv2.fillPoly(canvas, polygons, 255, lineType=cv2.LINE_AA, shift=shift)
    return np.asarray(canvas.astype(np.float32) / 255, np.float32)


def _clutter(rng: np.random.Generator, image: Field, scale: float) -> None:
    """Lines, specks and scratches that belong to no object, drawn in place."""
    height, width = image.shape[:2]
    for _ in range(int(rng.integers(0, 14))):
        color = [float(value) for value in rng.uniform(0, 255, 3)]
        start = (int(rng.integers(width)), int(rng.integers(height)))
        if rng.random() < 0.5:
            reach = rng.normal(0, 40 * scale, 2).astype(int)
            end = (start[0] + int(reach[0]), start[1] + int(reach[1]))
            thickness = max(1, round(scale * rng.uniform(0.6, 2)))
            cv2.line(image, start, end, color, thickness, cv2.LINE_AA)
        else:
            cv2.circle(image, start, max(1, round(scale * rng.uniform(0.7, 4))), color, -1, cv2.LINE_AA)


def _place(
    rng: np.random.Generator,
    settings: SceneSettings,
    placed: list[tuple[Field, float]],
    side: float,
) -> tuple[Field, int | None]:
    """A centre for the next object: free, or against one that is already there."""
    width, height = settings.size_wh
    margin = side * 0.5
    if placed and rng.random() < settings.pairs:
        partner = int(rng.integers(len(placed)))
        other, other_side = placed[partner]
        angle = rng.uniform(0, 2 * np.pi)
        distance = (side + other_side) * rng.uniform(0.36, 0.48)
        center = other + distance * np.array([np.cos(angle), np.sin(angle)], np.float32)
        inside = (margin <= center[0] <= width - margin) and (margin <= center[1] <= height - margin)
        if inside:
            return center.astype(np.float32), partner
    for _ in range(12):
        center = rng.uniform([margin, margin], [width - margin, height - margin]).astype(np.float32)
        apart = all(np.hypot(*(center - other)) > 0.42 * (side + other_side) for other, other_side in placed)
        if apart:
            break
    return center, None


def draw_scene(seed: int, settings: SceneSettings | None = None) -> Scene:
    """Draw the scene of a seed.

    Args:
        seed: decides everything; different seeds are independent.
        settings: size and difficulty; defaults to 256 x 256 pixels.

    Returns:
        The picture, the instance map and the objects that are still visible enough.
    """
    settings = settings or SceneSettings()
    rng = np.random.default_rng([0x7A70, seed])
    size_wh = settings.size_wh
    width, height = size_wh
    scale = min(size_wh) / 256
    names = list(COLORS_RGB)
    ground = _vary(rng, COLORS_RGB[str(rng.choice(names))], 25)
    image = _surface(rng, size_wh, ground, scale * rng.uniform(1, 3))
    if rng.random() < 0.5:
        _clutter(rng, image, scale)

    instances = np.zeros((height, width), np.uint8)
    placed: list[tuple[Field, float]] = []
    drawn: list[tuple[str, str, float, int | None]] = []
    for _ in range(int(rng.integers(settings.objects[0], settings.objects[1] + 1))):
        shape = str(rng.choice(CLASSES))
        low, high = np.log(settings.min_side * 1.1), np.log(settings.max_side)
        side = float(np.exp(rng.uniform(low, high)))
        center, touches = _place(rng, settings, placed, side)
        outlines = _outline(rng, shape, side)
        cover = _coverage(outlines, center, size_wh)
        mask = cover > 0.5
        if len(placed) and (mask & (instances > 0)).sum() > 0.3 * mask.sum():
            continue
        color = str(rng.choice(names))
        base = _vary(rng, COLORS_RGB[color], 18)
        if rng.random() < settings.camouflage:
            share = rng.uniform(0.45, 0.8)
            base = (base * (1 - share) + ground * share).astype(np.float32)
        if rng.random() < 0.6:
            offset = rng.uniform(0.03, 0.10) * side
            shadow = _coverage(outlines, center + np.float32(offset), size_wh)
            shadow = np.asarray(cv2.GaussianBlur(shadow, (0, 0), max(0.8, 0.05 * side)), np.float32)
            image *= 1 - rng.uniform(0.2, 0.6) * shadow[..., None]
        surface = _surface(rng, size_wh, base, scale)
        if rng.random() < 0.5:  # a lit and a dark side, as a solid body has
            distance = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3)
            shade = np.clip(distance / max(0.25 * side, 1), 0, 1)
            surface = np.asarray(surface * (1 - rng.uniform(0, 0.5) * (1 - shade[..., None])), np.float32)
        image[:] = image * (1 - cover[..., None]) + surface * cover[..., None]
        placed.append((center, side))
        drawn.append((shape, color, float(mask.sum()), touches))
        instances[mask] = len(drawn)
    if rng.random() < 0.5:
        _clutter(rng, image, scale)
    return _finish(rng, settings, image, instances, drawn)


def _finish(
    rng: np.random.Generator,
    settings: SceneSettings,
    image: Field,
    instances: Image,
    drawn: list[tuple[str, str, float, int | None]],
) -> Scene:
    """Camera faults, then keep the objects that are large and visible enough, renumbered."""
    scale = min(settings.size_wh) / 256
    if rng.random() < 0.5:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.3, 1.3) * scale)), np.float32)
    image = image * rng.uniform(0.75, 1.15) + rng.uniform(-15, 15)
    noisy = image + rng.normal(0, rng.uniform(0, 9), image.shape)
    pixels = noisy.clip(0, 255).astype(np.uint8)

    kept: dict[int, int] = {}
    objects: list[SceneObject] = []
    for index, (shape, color, area, touches) in enumerate(drawn):
        ys, xs = np.nonzero(instances == index + 1)
        if len(xs) < settings.min_visible * area or not len(xs):
            continue
        box = (int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)
        if max(box[2] - box[0], box[3] - box[1]) < settings.min_side:
            continue
        kept[index] = len(objects)
        partner = kept.get(touches) if touches is not None else None
        objects.append(SceneObject(shape, color, box, len(xs) / area, partner))
    renumber = np.zeros(len(drawn) + 1, np.uint8)
    for old, new in kept.items():
        renumber[old + 1] = new + 1
    return Scene(pixels, renumber[instances], tuple(objects))
