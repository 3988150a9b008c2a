"""Polygons: how well they cover true masks, what they cost, their vertices, and the builder's rate.

Masks come from the starter segmenter on generated scenes of seeds that training never uses, prompted with the true
boxes. ``seg.vertices_ratio`` compares the medians of all objects: ours, and Douglas and Peucker's with the largest
tolerance whose polygon, painted by ``cv2.fillPoly``, still has at least the IoU that ours has with the same mask.
``seg.rate`` compares the builder over the wire, with its reading, tracing and writing, with a bare loop of the same
segmenter's encoder and batched decoder over the same pictures in the same process, torch with as many threads.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.report import Figure, publish
from tator_ml.engine.client import EngineAway, EngineClient
from tator_ml.engine.segmenters.base import Prompts, Segmenter
from tator_ml.engine.segmenters.starter import STARTER_WEIGHTS, load
from tator_ml.learning.stores import image_store
from tator_sdk.geometry import MaskArray, Outline, iou_of_masks
from tator_sdk.polygons import outline_of_mask
from tator_sdk.requests import SegmentationBuild
from tator_sdk.settings import Settings
from training.job import LocalJob
from training.segmentation.build import build
from training.starter.scenes import Scene, draw_scene

FIRST_SEED = 9_600_000
SCENES = 40
RATE_PICTURES, ROUNDS = 60, 3
FINE = 8  # how much finer than pixels outlines are painted, so that OpenCV's rounding decides little


def painted(outline: Outline, shape: tuple[int, ...]) -> MaskArray:
    """Pixels (H, W) whose middles lie inside, by ``cv2.fillPoly`` on a finer grid."""
    canvas = np.zeros((shape[0] * FINE, shape[1] * FINE), np.uint8)
    rings = [np.round(ring * FINE - 0.5).astype(np.int32) for ring in (*outline.parts, *outline.holes)]
    cv2.fillPoly(canvas, rings, 1)
    return np.asarray(canvas[FINE // 2 :: FINE, FINE // 2 :: FINE] > 0)


def plain_vertices(mask: MaskArray, least_iou: float) -> int:
    """Vertices of ``cv2.approxPolyDP`` at the largest tolerance that still has the IoU, painted on its own grid."""
    padded = np.pad(mask, 1).astype(np.uint8)
    contours, _ = cv2.findContours(padded, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    best = sum(map(len, contours))
    low, high = 0.0, float(max(mask.shape)) / 4
    for _ in range(14):
        middle = (low + high) / 2
        rings = [cv2.approxPolyDP(contour, middle, True) for contour in contours]
        if iou_of_masks(cv2.fillPoly(np.zeros_like(padded), rings, 1) > 0, padded > 0) >= least_iou:
            low, best = middle, min(best, sum(map(len, rings)))
        else:
            high = middle
    return best


def boxes_of(scene: Scene) -> NDArray[np.float32]:
    return np.array([one.xyxy for one in scene.objects], np.float32).reshape(-1, 4)


def predicted_masks(segmenter: Segmenter, scene: Scene) -> NDArray[np.bool_]:
    embedding = segmenter.encode(scene.image)
    low = segmenter.decode(embedding, Prompts(boxes=boxes_of(scene)), multimask=False).low_res[:, 0]
    return (segmenter.full_size(embedding, low) > 0).cpu().numpy()


def outline_figures(segmenter: Segmenter, scenes: list[Scene]) -> list[Figure]:
    own, mask_iou, polygon_iou, ours, plain, seconds = [], [], [], [], [], []
    for scene in scenes:
        for index, mask in enumerate(predicted_masks(segmenter, scene)):
            begun = time.process_time()
            outline = outline_of_mask(mask)
            seconds.append(time.process_time() - begun)
            true = scene.mask(index)
            mask_iou.append(iou_of_masks(mask, true))
            if outline is None:
                polygon_iou.append(0.0)
                continue
            area = painted(outline, mask.shape)
            polygon_iou.append(iou_of_masks(area, true))
            own.append(iou_of_masks(area, mask))
            ours.append(sum(map(len, (*outline.parts, *outline.holes))))
            plain.append(plain_vertices(mask, own[-1]))
    ratio = float(np.median(ours) / np.median(plain))
    return [
        Figure("seg.objects", len(mask_iou), "objects", "higher"),
        Figure("seg.mask_iou", float(np.mean(mask_iou)), "IoU", "higher"),
        Figure("seg.polygon_iou", float(np.mean(polygon_iou)), "IoU", "higher", 0.85),
        Figure("seg.polygon_cost", float(np.mean(mask_iou) - np.mean(polygon_iou)), "IoU", "lower", 0.02),
        Figure("seg.polygon_of_mask", float(np.mean(own)), "IoU", "higher"),
        Figure("seg.vertices", float(np.median(ours)), "vertices", "lower"),
        Figure("seg.vertices_plain", float(np.median(plain)), "vertices", "lower"),
        Figure("seg.vertices_ratio", ratio, "ratio", "lower", 1.0),
        Figure("seg.outline_ms", 1000 * float(np.median(seconds)), "ms of CPU", "lower"),
    ]


def write_set(folder: Path, scenes: list[Scene]) -> Path:
    """Scenes as a YOLO data set of JPEG files."""
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for number, scene in enumerate(scenes):
        height, width = scene.image.shape[:2]
        cv2.imwrite(str(folder / "images" / f"{number:04}.jpg"), scene.image[..., ::-1])
        x0, y0, x1, y1 = boxes_of(scene).T
        rows = np.stack([(x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height], 1)
        text = "".join("0 " + " ".join(f"{value:.6f}" for value in row) + "\n" for row in rows)
        (folder / "labels" / f"{number:04}.txt").write_text(text)
    (folder / "labelmap.txt").write_text("object\n")
    return folder


@contextmanager
def engine_process(settings: Settings) -> Iterator[None]:
    """A real engine of its own, as `tator up` starts it."""
    environment = {**os.environ, **settings.environment(), "OMP_NUM_THREADS": "1"}
    engine = subprocess.Popen([sys.executable, "-m", "tator_sdk", "engine"], env=environment)
    client = EngineClient(settings, image_store(settings))
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                if client.status().ready:
                    break
            except EngineAway:
                pass
            time.sleep(0.2)
        yield
    finally:
        client.close()
        engine.terminate()
        engine.wait(30)


def bare_seconds(segmenter: Segmenter, scenes: list[Scene]) -> float:
    """Encoder, and all boxes in one decoder batch; pictures are in memory and masks stay in the decoder's size."""
    begun = time.perf_counter()
    for scene in scenes:
        segmenter.decode(segmenter.encode(scene.image), Prompts(boxes=boxes_of(scene)), multimask=False)
    return time.perf_counter() - begun


def rate_figures(segmenter: Segmenter, scenes: list[Scene]) -> list[Figure]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = write_set(folder / "set", scenes)
        # nothing is kept of a picture, so that each round encodes all of them anew
        settings = Settings(
            _env_file=None, home=folder / "home", torch_threads=1, embedding_store_bytes=0, warm_bytes=0, offline=True
        )
        bare, built, ratios = [], [], []
        with engine_process(settings):
            for number in range(-1, ROUNDS):  # the first warms both up
                bare.append(bare_seconds(segmenter, scenes))
                request = SegmentationBuild(path=source, output=folder / f"out{number}")
                begun = time.perf_counter()
                report = build(request, settings, LocalJob(settings, request.build))
                built.append(time.perf_counter() - begun)
                ratios.append(bare[-1] / built[-1])
                if report["pictures"] != len(scenes):
                    raise RuntimeError("the builder left pictures out")
    count = len(scenes)
    return [
        Figure("seg.bare_rate", count / float(np.median(bare[1:])), "pictures/s", "higher"),
        Figure("seg.build_rate", count / float(np.median(built[1:])), "pictures/s", "higher"),
        Figure("seg.rate", float(np.median(ratios[1:])), "ratio", "higher", 0.85),
    ]


def measure() -> list[Figure]:
    """All figures; a minute on two idle cores."""
    segmenter = load(STARTER_WEIGHTS, "cpu")
    scenes = [scene for seed in range(FIRST_SEED, FIRST_SEED + RATE_PICTURES) if (scene := draw_scene(seed)).objects]
    return [*outline_figures(segmenter, scenes[:SCENES]), *rate_figures(segmenter, scenes)]


if __name__ == "__main__":
    sys.exit(publish("data_polygons", measure()))
