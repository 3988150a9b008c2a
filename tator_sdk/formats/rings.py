"""Several rings in one line, and back: how YOLO-seg, which knows one polygon an object, keeps parts and holes.

Rings are joined by a bridge of no width, there and back between their nearest corners, as ultralytics'
``merge_multi_segment`` does for COCO's parts. Filled by the even-odd rule (``cv2.fillPoly``, which ultralytics and
supervision use) the line covers what the outline covers, holes included, but for the bridge's own pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tator_sdk.formats.dataset import Outline, Ring
from tator_sdk.geometry import signed_area

MOST_BRIDGES = 1000
MOST_MIDDLES = 9
"""Of edges that tell where a ring lies."""


def join_rings(outline: Outline) -> Ring:
    """An outline as one ring (N, 2) in pixels; a single part without holes stays as it is.

    The nearest ring is joined next, as in Prim's algorithm: each corner remembers what it is nearest to so far, since a
    mask of noise has thousands of rings.
    """
    joined = outline.parts[0]
    left = [*outline.parts[1:], *outline.holes]
    if not left:
        return joined
    corners = np.concatenate(left)
    owner = np.repeat(np.arange(len(left)), [len(ring) for ring in left])
    begins = np.searchsorted(owner, np.arange(len(left)))
    squared, at = _nearest(joined, corners)
    waits = np.ones(len(corners), bool)
    for _ in left:
        best = int(np.where(waits, squared, np.inf).argmin())
        chosen, here = owner[best], int(at[best])
        ring, there = left[chosen], best - begins[chosen]
        around = np.concatenate([ring[there:], ring[: there + 1]])
        joined = np.concatenate([joined[: here + 1], around, joined[here:]])
        waits &= owner != chosen
        at[at > here] += len(around) + 1  # what stood behind the bridge has moved
        closer, where = _nearest(around, corners)
        nearer = closer < squared
        squared[nearer], at[nearer] = closer[nearer], here + 1 + where[nearer]
    return joined


def split_ring(ring: Ring) -> Outline:
    """What ``join_rings`` joined: rings apart from each other, those inside another one as holes.

    A bridge is an edge that the ring goes through in both directions, at exactly the same corners.
    """
    rings = _without_bridges(ring)
    if len(rings) == 1:
        return Outline((rings[0],))
    parts: list[Ring] = []
    holes: list[Ring] = []
    for one, depth in zip(rings, _depths(rings), strict=True):
        (holes if depth % 2 else parts).append(one)
    return Outline(tuple(parts), tuple(holes)) if parts else Outline((ring,))


def _nearest(ring: Ring, corners: Ring) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """For each corner (M, 2) the squared distance to the nearest of a ring, (M,), and which that is, (M,)."""
    squared, at = np.full(len(corners), np.inf), np.zeros(len(corners), np.int64)
    for begin in range(0, len(ring), 256):  # so that long rings need no matrix of all their corners
        part = ((ring[begin : begin + 256, None] - corners[None]) ** 2).sum(2)
        nearest = part.argmin(0)
        found = part[nearest, np.arange(len(corners))]
        nearer = found < squared
        squared[nearer], at[nearer] = found[nearer], begin + nearest[nearer]
    return squared, at


def _without_bridges(ring: Ring) -> list[Ring]:
    waiting: list[NDArray[np.float64]] = [ring]
    rings: list[Ring] = []
    while waiting:
        one = waiting.pop()
        cut = _bridge(one) if len(rings) + len(waiting) < MOST_BRIDGES else None
        if cut is None:
            rings.append(one)
            continue
        first, second = cut
        # … a b … b a …: the edge a→b is left out, and its way back b→a
        inner, outer = one[first + 1 : second], np.concatenate([one[:first], one[second + 1 :]])
        pieces = [piece for piece in (outer, inner) if len(piece) >= 3]
        if len(pieces) < 2 or not all(map(_encloses, pieces)):
            rings.append(one)  # a spike rather than a bridge: left as it was drawn
        else:
            waiting += pieces
    return rings


def _encloses(ring: Ring) -> bool:
    """Whether a ring goes around anything; a line there and back does not.

    Its signed area alone does not tell: that of two parts that are still joined, and run opposite ways, may be nothing.
    """
    if signed_area(ring):
        return True
    corners = [tuple(corner) for corner in ring.tolist()]
    edges = set(zip(corners, corners[1:] + corners[:1], strict=True))
    once = np.array([begin for begin, end in edges if (end, begin) not in edges])
    if not len(once):
        return False
    x, y = (once - once[0]).T
    furthest = (x**2 + y**2).argmax()
    return bool((x * y[furthest] != y * x[furthest]).any())


def _bridge(ring: Ring) -> tuple[int, int] | None:
    """Indices i < j of an edge i→i+1 that the edge j→j+1 goes back; the shortest way around first."""
    corners = [tuple(corner) for corner in ring.tolist()]
    count = len(corners)
    seen: dict[tuple[object, object], int] = {}
    for index, corner in enumerate(corners):
        following = corners[(index + 1) % count]
        back = seen.get((following, corner))
        if back is not None and corner != following and index - back > 3 and (index < count - 1 or back > 0):
            return back, index
        seen[(corner, following)] = index
    return None


def _depths(rings: Sequence[Ring]) -> NDArray[np.int64]:
    """In how many of the others each ring lies; as they do not cross, most of its first edges' middles tell."""
    middles = [((ring + np.roll(ring, -1, axis=0)) / 2)[:MOST_MIDDLES] for ring in rings]
    points = np.concatenate(middles)
    owner = np.repeat(np.arange(len(rings)), [len(one) for one in middles])
    half = np.bincount(owner) / 2
    depths = np.zeros(len(rings), np.int64)
    for place, ring in enumerate(rings):
        # of a mask of noise, with hundreds of rings, most are nowhere near each other
        near = np.flatnonzero(((points >= ring.min(0)) & (points <= ring.max(0))).all(1) & (owner != place))
        near = near[(np.bincount(owner[near], minlength=len(rings)) > half)[owner[near]]]
        depths += np.bincount(owner[near], _inside(ring, points[near]), len(rings)) > half
    return depths


def _inside(ring: Ring, points: Ring) -> NDArray[np.bool_]:
    """Which of the points (M, 2) lie inside of a ring by the even-odd rule, (M,)."""
    (x0, y0), (x1, y1) = ring.T, np.roll(ring, -1, axis=0).T
    found = np.zeros(len(points), bool)
    for begin in range(0, len(points), 256):  # as in `_nearest`
        x, y = points[begin : begin + 256, :, None].transpose(1, 0, 2)
        crosses = (y0 > y) != (y1 > y)
        with np.errstate(divide="ignore", invalid="ignore"):
            at = x0 + (y - y0) / (y1 - y0) * (x1 - x0)
        found[begin : begin + 256] = (crosses & (x < at)).sum(1) % 2
    return found
