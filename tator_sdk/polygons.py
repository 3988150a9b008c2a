"""Masks → outlines with few vertices that still cover the same pixels."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from tator_sdk.fitting import Bounds, Coverage, Edges
from tator_sdk.geometry import MaskArray, Outline, Ring, box_of_mask, signed_area

Polygon = NDArray[np.float64]
Corners = list[NDArray[np.int32]]
"""Rings (N, 1, 2) as OpenCV has them, through corners of pixels."""

LEAST_IOU = 0.98
SPECKS = 0.1
"""Share of the area that may differ which goes to leaving out specks: parts and holes of a few pixels."""
MOST_REFINED = 400
"""Vertices of an outline that is worth fitting; a torn mask has more, and keeps them."""
MOST_CUT = 0.15
"""Tolerance beside the square root of a ring's area: small parts keep their shape beside large ones."""
MOST_LOST = 0.1
"""Of a ring's own area, to leaving out one vertex."""
SMALL_PIXELS = 25**2
"""Where a pixel is as large as what may differ, the stated IoU holds for areas too, steps of the pixels included."""
MARGIN = 2


def outline_of_mask(
    mask: MaskArray, least_iou: float = LEAST_IOU, epsilon_pixels: float | None = None
) -> Outline | None:
    """The outline of a mask with its parts and holes, in as few vertices as it takes.

    Douglas and Peucker's algorithm at its largest tolerance comes first. Its vertices are pixels' corners, so it
    cuts every curve; then vertices move onto the outline between the pixels, and those that matter least go, a few
    at a time, as long as the IoU with the mask holds.

    Args:
        mask: (H, W).
        least_iou: of the pixels whose middles lie inside with the mask, 0..1. Pixels that meet at corners alone are
            joined first, so a mask that is full of them may end below.
        epsilon_pixels: where given, Douglas and Peucker's tolerance, and ``least_iou`` is not looked at.

    Returns:
        Rings that cross neither themselves nor each other, largest part first; None for an empty mask. Specks, which
        together are at most a tenth of what may differ, are left out.
    """
    found = box_of_mask(mask)
    if found is None:
        return None
    x0, y0, x1, y1 = (int(edge) for edge in found)
    part = np.pad(np.asarray(mask[y0:y1, x0:x1], bool), MARGIN)
    low = np.array([MARGIN - x0, MARGIN - y0])
    bounds = low, low + np.array(mask.shape[::-1])
    coverage = Coverage(part, bounds)
    corners = _without_specks(_traced(_joined(part)), SPECKS * (1 - least_iou) * coverage.area)
    if epsilon_pixels is None:
        edges = _fewest(coverage, corners, least_iou)
        if coverage.area < SMALL_PIXELS:
            edges = _held_by_area(part, bounds, coverage, corners, edges, least_iou)
    else:
        edges = _simplified(corners, epsilon_pixels)
        while edges.broken():
            epsilon_pixels /= 2
            edges = _simplified(corners, epsilon_pixels)
    rings = [ring - low for ring in edges.rings()]
    areas = [signed_area(ring) for ring in rings]
    order = np.argsort(areas)[::-1]
    return Outline(
        parts=tuple(rings[index] for index in order if areas[index] > 0),
        holes=tuple(rings[index] for index in order[::-1] if areas[index] < 0),
    )


def polygons_of_mask(mask: MaskArray, least_iou: float = LEAST_IOU) -> list[Polygon]:
    """Outer rings of a mask's parts, largest first; holes are filled, as who takes polygons cannot have them.

    Args:
        mask: (H, W).
        least_iou: as :func:`outline_of_mask` has it.

    Returns:
        Polygons (N, 2), N at least 3, in pixels.
    """
    outline = outline_of_mask(filled(mask), least_iou)
    return [] if outline is None else list(outline.parts)


def filled(mask: MaskArray) -> MaskArray:
    """The mask (H, W) without its holes."""
    padded = np.pad(mask.astype(np.uint8), 1)
    cv2.floodFill(padded, None, (0, 0), 2)  # of the background around, in four directions
    return np.asarray(padded[1:-1, 1:-1] != 2)


def _joined(mask: MaskArray) -> MaskArray:
    """The mask with pixels added where two touch at a corner alone: no outline could pass between them."""
    joined = mask.copy()
    while True:
        a, b, c, d = joined[:-1, :-1], joined[:-1, 1:], joined[1:, :-1], joined[1:, 1:]
        falling, rising = a & d & ~b & ~c, b & c & ~a & ~d
        if not (falling.any() or rising.any()):
            return joined
        joined[:-1, 1:] |= falling
        joined[:-1, :-1] |= rising


def pixel_rings(mask: MaskArray) -> list[tuple[NDArray[np.int32], bool]]:
    """Rings (N, 2) along the outer edges of a mask's pixels, one point for each, and whether each is a hole's.

    Parts are 8-connected, holes 4-connected. The mask (H, W) has something, and nothing at its borders.
    """
    # on a doubled grid a contour runs through the middles of quarter pixels, each of which has one corner of its pixel
    doubled = mask.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    contours, tree = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    rings = ((np.asarray(contour.reshape(-1, 2), np.int32) + 1) // 2 for contour in contours)
    return [(ring, bool(place[3] >= 0)) for ring, place in zip(rings, tree[0], strict=True)]


def _traced(mask: MaskArray) -> Corners:
    """Rings (N, 1, 2) through the corners of pixels; parts have a positive area, holes a negative one."""
    rings = []
    for ring, hole in pixel_rings(mask):
        turned = (signed_area(ring.astype(np.float64)) > 0) == hole
        rings.append(np.ascontiguousarray((ring[::-1] if turned else ring)[:, None]))
    return rings


def _without_specks(rings: Corners, area: float) -> Corners:
    """Rings but for the smallest, which together have at most this area in square pixels; at least one stays."""
    areas = np.array([abs(signed_area(ring[:, 0].astype(np.float64))) for ring in rings])
    order = np.argsort(areas)
    gone = set(order[np.cumsum(areas[order]) <= area].tolist())
    return [ring for number, ring in enumerate(rings) if number not in gone]


def _simplified(corners: Corners, epsilon: float) -> Edges:
    rings = []
    for ring in corners:
        size = abs(signed_area(ring[:, 0].astype(np.float64))) ** 0.5
        simple = cv2.approxPolyDP(ring, min(epsilon, MOST_CUT * size), True)[:, 0].astype(np.float64)
        rings.append(simple if len(simple) >= 3 else _box_around(ring))
    return Edges.of(rings)


def _box_around(ring: NDArray[np.int32]) -> Ring:
    """Four corners for a ring that was simplified away, turning as it does."""
    points = ring[:, 0].astype(np.float64)
    (x0, y0), (x1, y1) = points.min(0), points.max(0)
    box = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    return box if signed_area(points) > 0 else box[::-1]


def _simplest(coverage: Coverage, corners: Corners, least_iou: float) -> tuple[Edges, float]:
    """Douglas and Peucker's rings at the largest tolerance whose IoU holds, and that tolerance in pixels."""
    low, high = 0.0, max(float(np.ptp(ring[:, 0], axis=0).max()) for ring in corners) / 4
    best = _simplified(corners, 0.0)
    for _ in range(8):
        middle = (low + high) / 2
        tried = _simplified(corners, middle)
        if coverage.iou(tried) >= least_iou:
            low, best = middle, tried
        else:
            high = middle
    while low and (best.broken() or coverage.iou(best) < least_iou):  # hardly ever: what crosses is miscounted
        low = low / 2 if low > 0.6 else 0.0
        best = _simplified(corners, low)
    return best, low


def _fewest(coverage: Coverage, corners: Corners, least_iou: float) -> Edges:
    return _refined(coverage, corners, *_simplest(coverage, corners, least_iou), least_iou)


def _held_by_area(
    mask: MaskArray,
    bounds: Bounds,
    coverage: Coverage,
    corners: Corners,
    edges: Edges,
    least_iou: float,
) -> Edges:
    """The rings, or ones that follow the pixels' steps where too much of a small mask's area lies in these."""
    fine = Coverage(mask.repeat(4, axis=0).repeat(4, axis=1), (4 * bounds[0], 4 * bounds[1]))
    if fine.iou(edges.moved(4 * edges.points)) >= least_iou:
        return edges
    # a quarter of what may differ is left to whoever paints it, with a pixel's width of his own
    stepped = _fewest(fine, [4 * ring for ring in corners], (1 + 3 * least_iou) / 4)
    stepped = stepped.moved(stepped.points / 4)
    return stepped if coverage.iou(stepped) >= least_iou else Edges.of([ring[:, 0].astype(float) for ring in corners])


def _refined(coverage: Coverage, corners: Corners, simple: Edges, epsilon: float, least_iou: float) -> Edges:
    """Rings with fewer vertices than the simplified ones, moved onto the outline; those where there are none."""
    if len(simple) > MOST_REFINED:
        return simple
    for careful in (False, True):  # hardly any ring crosses itself, and looking takes as long as all the rest
        best = _thinned(coverage, _begun(coverage, corners, simple, epsilon, least_iou, careful), least_iou, careful)
        if careful or not best.broken():
            return best
    raise AssertionError("not reached")


def _begun(
    coverage: Coverage, corners: Corners, simple: Edges, epsilon: float, least_iou: float, careful: bool
) -> Edges:
    """A coarser ring than the simplified one, which covers as much once it is moved onto the outline."""
    for times in (4.0, 2.5, 1.5):
        start = _simplified(corners, times * epsilon)
        if len(start) <= len(simple):
            tried, iou = coverage.fitted(start, 2, least_iou)
            if iou >= least_iou and not (careful and tried.broken()):
                return tried
    return simple


def _thinned(coverage: Coverage, edges: Edges, least_iou: float, careful: bool) -> Edges:
    """The ring without the vertices that it can do without."""
    best, together = edges, max(1, len(edges) // 5)
    while together:
        gone = _least(best, coverage.costs(best), together)
        if not len(gone):  # nothing but triangles is left
            break
        tried, iou = coverage.fitted(best.without(gone), 1 if together > 1 else 4, least_iou)
        if iou >= least_iou and not (careful and tried.broken()):
            best, together = tried, min(together, max(1, len(tried) // 5))
        else:
            together = len(gone) // 2
    return best


def _least(edges: Edges, costs: NDArray[np.float64], most: int) -> NDArray[np.intp]:
    """The vertices that cost least, no two of them neighbours; three of each ring stay."""
    spare = np.bincount(edges.ring) - 3
    areas = [abs(signed_area(ring)) for ring in edges.rings()]
    taken: list[int] = []
    blocked = np.zeros(len(edges), bool)
    for index in np.argsort(costs):
        if len(taken) == most:
            break
        ring = edges.ring[index]
        if blocked[index] or spare[ring] <= 0 or costs[index] > MOST_LOST * areas[ring]:
            continue
        taken.append(int(index))
        spare[ring] -= 1
        blocked[[edges.before[index], edges.after[index]]] = True
    return np.array(taken, np.intp)
