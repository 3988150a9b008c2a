"""Scenes drawn ahead of training, so that no step waits for its pictures."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from training.starter.scenes import draw_scene

CHUNK = 250


@dataclass(frozen=True)
class ScenePack:
    """Memory-mapped pictures (N, 256, 256, 3) uint8 and instance maps (N, 256, 256) uint8."""

    images: NDArray[np.uint8]
    instances: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.images)


def _draw_chunk(first: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    cv2.setNumThreads(1)
    scenes = [draw_scene(seed) for seed in range(first, first + CHUNK)]
    return (
        np.stack([scene.image for scene in scenes]),
        np.stack([scene.instances for scene in scenes]),
    )


def load_pack(folder: Path, count: int, workers: int = 2) -> ScenePack:
    """Open the scenes of seeds 0..count-1 in ``folder``, drawing them first where they are missing.

    A pack that was interrupted is drawn anew: its arrays get their names only when complete.
    """
    folder.mkdir(parents=True, exist_ok=True)
    images_path, instances_path = folder / f"images-{count}.npy", folder / f"instances-{count}.npy"
    if not (images_path.exists() and instances_path.exists()):
        started = [path.with_suffix(".part") for path in (images_path, instances_path)]
        shape = (count, 256, 256)
        images = np.lib.format.open_memmap(started[0], "w+", np.uint8, (*shape, 3))
        instances = np.lib.format.open_memmap(started[1], "w+", np.uint8, shape)
        with ProcessPoolExecutor(workers) as pool:
            firsts = range(0, count, CHUNK)
            for first, (drawn, maps) in zip(firsts, pool.map(_draw_chunk, firsts), strict=True):
                size = min(CHUNK, count - first)
                images[first : first + size] = drawn[:size]
                instances[first : first + size] = maps[:size]
                print(f"scenes {first + size} of {count}", flush=True)
        images.flush()
        instances.flush()
        started[0].rename(images_path)
        started[1].rename(instances_path)
    return ScenePack(np.load(images_path, mmap_mode="r"), np.load(instances_path, mmap_mode="r"))
