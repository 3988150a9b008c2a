"""How well rings cover a mask, pixel by pixel, and rings moved so that they cover it better.

A pixel is covered where its middle lies inside. How many are, and how many of them are the mask's, are sums over the
rings' edges (Green's theorem on the grid: what lies left of an edge in each row that it passes). So nothing is
painted, and leaving out or moving a vertex is judged by its two edges alone.

Rings are (N, 2) points in pixels, the left and upper edge of the picture at 0; a part has a positive and a hole a
negative area.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tator_sdk.geometry import MaskArray, Ring

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
Bounds = tuple[Floats, Floats]
"""Upper left and lower right corner, x and y."""

REACH_PIXELS = 4.0  # an outline farther off than this belongs to something else …
REACH_SHARE = 0.06  # … or, of large masks, than this share of the square root of their area
DAMPING = 0.02  # of a vertex along its own edges, where nothing holds it


@dataclass(frozen=True, eq=False)
class Edges:
    """Closed rings as one list of edges: edge ``i`` goes from vertex ``i`` to vertex ``after[i]``.

    Attributes:
        points: (K, 2) vertices of all rings, pixels.
        after: (K,) index of the next vertex of the same ring; ``before`` of the previous one.
        ring: (K,) number of the ring.
    """

    points: Floats
    after: Indices
    before: Indices
    ring: Indices

    @classmethod
    def of(cls, rings: list[Ring]) -> Edges:
        """Rings → edges."""
        counts = np.array([len(one) for one in rings])
        first = np.cumsum(counts) - counts
        place = np.arange(counts.sum())
        ring = np.repeat(np.arange(len(rings)), counts)
        inside = place - first[ring]
        after = first[ring] + (inside + 1) % counts[ring]
        before = first[ring] + (inside - 1) % counts[ring]
        return cls(np.concatenate(rings).astype(np.float64), after, before, ring)

    def __len__(self) -> int:
        return len(self.points)

    def rings(self) -> list[Ring]:
        """Edges → rings."""
        count = int(self.ring[-1]) + 1 if len(self.ring) else 0
        return [self.points[self.ring == number] for number in range(count)]

    def moved(self, points: Floats) -> Edges:
        """The same rings through other points."""
        return Edges(points, self.after, self.before, self.ring)

    def without(self, gone: Indices) -> Edges:
        """The rings with some vertices left out."""
        kept = np.ones(len(self), bool)
        kept[gone] = False
        count = int(self.ring[-1]) + 1
        return Edges.of([self.points[kept & (self.ring == number)] for number in range(count)])

    def broken(self) -> bool:
        """Whether edges meet that do not follow each other, or a hole lies outside of the parts, a part inside one."""
        a, b = self.points, self.points[self.after]
        for first in range(0, len(self), 512):  # K squared pairs of a torn mask must not fill the memory
            rows = slice(first, first + 512)
            if (_meet(a[rows, None], b[rows, None], a[None], b[None]) & ~self._neighbours(rows)).any():
                return True
        return self._misplaced()

    def _misplaced(self) -> bool:
        """Of rings that do not cross."""
        heads = np.flatnonzero(np.diff(self.ring, prepend=-1))
        if len(heads) == 1:
            return False
        a, b = self.points, self.points[self.after]
        x, y = self.points[heads, 0, None], self.points[heads, 1, None]
        rising, falling = (a[:, 1] <= y) & (b[:, 1] > y), (a[:, 1] > y) & (b[:, 1] <= y)
        drop = np.where(b[:, 1] == a[:, 1], 1, b[:, 1] - a[:, 1])
        ahead = a[:, 0] + (y - a[:, 1]) * (b[:, 0] - a[:, 0]) / drop > x
        others = self.ring[None] != np.arange(len(heads))[:, None]
        around = ((rising.astype(int) - falling) * (ahead & others)).sum(1)
        areas = np.bincount(self.ring, a[:, 0] * b[:, 1] - b[:, 0] * a[:, 1])
        return bool((around != (areas < 0)).any())

    def _neighbours(self, rows: slice) -> NDArray[np.bool_]:
        mine, all_ = np.arange(len(self))[rows, None], np.arange(len(self))[None]
        return (mine == all_) | (self.after[rows, None] == all_) | (self.before[rows, None] == all_)  # type: ignore[no-any-return]


class Coverage:
    """A mask, as rings are compared with it."""

    def __init__(self, mask: MaskArray, bounds: Bounds | None = None) -> None:
        """Sum the mask up.

        Args:
            mask: (H, W), with an empty pixel or two on each side.
            bounds: corners of the picture in the mask's pixels, which no fitted vertex leaves.
        """
        self._bounds = bounds or (np.zeros(2), np.array(mask.shape[::-1], float))
        height, width = mask.shape
        self.area = int(np.count_nonzero(mask))
        self._reach = max(REACH_PIXELS, REACH_SHARE * self.area**0.5)
        self._width, self._height = width, height
        sums = np.zeros((height, width + 1), np.int32)
        np.cumsum(mask, axis=1, out=sums[:, 1:])
        self._sums = sums.ravel()
        solid = np.ascontiguousarray(mask, np.uint8)
        inside = cv2.distanceTransform(solid, cv2.DIST_L2, 5)
        outside = cv2.distanceTransform(1 - solid, cv2.DIST_L2, 5)
        # distances are to the nearest pixel's middle, the outline runs half a pixel nearer
        depth = np.maximum(inside - 0.5, 0) - np.maximum(outside - 0.5, 0)
        self._depth = depth.astype(np.float64).ravel()

    def edge_sums(self, start: Floats, end: Floats) -> tuple[Floats, Floats]:
        """What each edge adds to the pixels that are covered, and to those of them that are the mask's.

        Args:
            start: (E, 2) points, as ``end``.
            end: where the edges end.
        """
        x, y, step = start[:, 0], start[:, 1], end - start
        rows = np.ceil(np.stack([y, end[:, 1]]) - 0.5).clip(0, self._height).astype(np.intp)
        first = rows.min(0)
        counts = rows.max(0) - first  # rows whose middle the edge passes
        edge = np.repeat(np.arange(len(step)), counts)
        row = np.arange(len(edge)) + (first - np.cumsum(counts) + counts)[edge]
        slope = step[:, 0] / np.where(counts > 0, step[:, 1], 1)
        column = np.ceil((x + (0.5 - y) * slope - 0.5)[edge] + row * slope[edge])
        place = column.clip(0, self._width).astype(np.intp)
        sign = np.sign(step[:, 1])
        covered = np.bincount(edge, place, len(step)) * sign
        shared = np.bincount(edge, self._sums[row * (self._width + 1) + place], len(step)) * sign
        return covered, shared

    def iou(self, edges: Edges) -> float:
        """IoU of the pixels inside the rings with the mask, 0..1, of rings that do not cross."""
        covered, shared = self.edge_sums(edges.points, edges.points[edges.after])
        both = float(shared.sum())
        return both / max(self.area + float(covered.sum()) - both, 1e-9)

    def costs(self, edges: Edges) -> Floats:
        """(K,) by how many more pixels differ when a vertex is left out."""
        points = edges.points
        size = len(points)
        covered, shared = self.edge_sums(
            np.concatenate([points, points[edges.before]]), np.concatenate([points[edges.after]] * 2)
        )
        differ = covered - 2 * shared
        return np.asarray(differ[size:] - differ[:size] - differ[:size][edges.before])

    def fitted(self, edges: Edges, rounds: int, enough_iou: float = 1.0) -> tuple[Edges, float]:
        """The rings with all vertices moved at once, so that the edges lie on the mask's outline.

        Each round is one step of Gauss and Newton: where an edge lies is measured at its samples by the mask's signed
        distance, weighted so that the area that differs falls, not its square. A round that makes things worse ends it.

        Args:
            edges: of the rings.
            rounds: at most so many.
            enough_iou: no further round once this is reached, 0..1.

        Returns:
            The rings, and their IoU with the mask.
        """
        best, least = edges, self.iou(edges)
        for _ in range(rounds):
            if least >= enough_iou:
                break
            tried = best.moved((best.points + self._step(best)).clip(*self._bounds))
            reached = self.iou(tried)
            if reached <= least:
                break
            best, least = tried, reached
        return best, least

    def _step(self, edges: Edges) -> Floats:
        start, end = edges.points, edges.points[edges.after]
        step = end - start
        length = np.maximum(np.hypot(step[:, 0], step[:, 1]), 1e-6)
        normal = np.stack([step[:, 1], -step[:, 0]], 1) / length[:, None]
        edge, along, counts = _sampled(step)
        points = start[edge] + along[:, None] * step[edge]
        off = np.clip(self._depth_at(points), -self._reach, self._reach)
        weight = (length / counts)[edge] / np.maximum(np.abs(off), 0.5)
        size = len(edges)

        def total(values: Floats) -> Floats:
            return np.bincount(edge, values, size).astype(np.float64)

        near, far = weight * (1 - along), weight * along
        squared = normal[:, :, None] * normal[:, None, :]
        matrix = np.zeros((size, 2, size, 2))
        here = np.arange(size)
        there = edges.after
        _add(matrix, here, here, total(near * (1 - along))[:, None, None] * squared)
        _add(matrix, there, there, total(far * along)[:, None, None] * squared)
        mixed = total(near * along)[:, None, None] * squared
        _add(matrix, here, there, mixed)
        _add(matrix, there, here, mixed)
        right = total(near * off)[:, None] * normal
        right[there] += total(far * off)[:, None] * normal
        flat = matrix.reshape(2 * size, 2 * size)
        flat[np.diag_indices(2 * size)] += DAMPING * (1 + np.trace(flat) / (2 * size))
        moves = np.linalg.solve(flat, right.ravel()).reshape(size, 2)
        return np.clip(moves, -self._reach, self._reach)

    def _depth_at(self, points: Floats) -> Floats:
        """Signed distance to the outline in pixels, positive inside, between the pixels' middles."""
        x = np.clip(points[:, 0] - 0.5, 0, self._width - 1.001)
        y = np.clip(points[:, 1] - 0.5, 0, self._height - 1.001)
        column, row = x.astype(np.intp), y.astype(np.intp)
        right, down = x - column, y - row
        depth, place = self._depth, row * self._width + column
        upper = depth[place] * (1 - right) + depth[place + 1] * right
        lower = depth[place + self._width] * (1 - right) + depth[place + self._width + 1] * right
        return np.asarray(upper * (1 - down) + lower * down, np.float64)


def _add(matrix: Floats, rows: Indices, columns: Indices, blocks: Floats) -> None:
    """Add (K, 2, 2) blocks; no pair of row and column comes twice."""
    matrix[rows, :, columns, :] += blocks


def _sampled(step: Floats) -> tuple[Indices, Floats, Indices]:
    """Samples of edges: the edge each belongs to, where on it (0..1), and how many each edge has."""
    counts = np.maximum(np.ceil(np.abs(step).max(1)), 1).astype(np.intp)
    edge = np.repeat(np.arange(len(step)), counts)
    number = np.arange(len(edge)) - (np.cumsum(counts) - counts)[edge]
    return edge, (number + 0.5) / counts[edge], counts


def _meet(a: Floats, b: Floats, c: Floats, d: Floats) -> NDArray[np.bool_]:
    """Whether the segments from a to b and from c to d meet, touching included."""
    one, other = _side(a, b, c), _side(a, b, d)
    third, fourth = _side(c, d, a), _side(c, d, b)
    straddle = (one * other <= 0) & (third * fourth <= 0)
    low, high = np.minimum(a, b), np.maximum(a, b)
    low_other, high_other = np.minimum(c, d), np.maximum(c, d)
    return np.asarray(straddle & ((low <= high_other) & (low_other <= high)).all(-1))


def _side(a: Floats, b: Floats, c: Floats) -> Floats:
    return np.asarray(
        (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (c[..., 0] - a[..., 0])
    )
