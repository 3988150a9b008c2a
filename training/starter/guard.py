"""Where the guard's thresholds come from: what each would do to loosened boxes on generated scenes.

Seeds lie between those of training and of the benchmark. Prints one JSON line for each setting: mean
IoU after, share refined, and share of the refined boxes that became better.
"""

from __future__ import annotations

import argparse
import itertools
import json
from dataclasses import dataclass

import numpy as np

from tator_ml.engine.refine import Guard, objections, segment_boxes
from tator_ml.engine.segmenters.base import Segmenter
from tator_ml.engine.segmenters.starter import STARTER_WEIGHTS, load
from tator_sdk.geometry import Xyxy, iou_xyxy
from training.starter.prompts import loosened
from training.starter.scenes import draw_scene

FIRST_SEED = 8_500_000


@dataclass(frozen=True)
class Trial:
    """One loosened box: its IoU with the truth before and after, and which guards would let it pass."""

    before: float
    after: float
    passes: tuple[bool, ...]


def trials(segmenter: Segmenter, scenes: int, guards: list[Guard]) -> list[Trial]:
    """Loosen every object's box by up to 15 % a side, refine it, and ask every guard."""
    rng = np.random.default_rng(11)
    found = []
    for seed in range(FIRST_SEED, FIRST_SEED + scenes):
        scene = draw_scene(seed)
        if not scene.objects:
            continue
        embedding = segmenter.encode(scene.image)
        drawn: list[Xyxy] = []
        for one in scene.objects:
            x0, y0, x1, y1 = (float(edge) for edge in loosened(rng, one.xyxy, 0.15))
            drawn.append((x0, y0, x1, y1))
        for one, box, segment in zip(scene.objects, drawn, segment_boxes(segmenter, embedding, drawn), strict=True):
            truth: Xyxy = one.xyxy
            if segment is None:
                found.append(Trial(iou_xyxy(box, truth), 0.0, (False,) * len(guards)))
                continue
            passes = tuple(not objections(segment, box, guard) for guard in guards)
            found.append(Trial(iou_xyxy(box, truth), iou_xyxy(segment.xyxy, truth), passes))
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=150)
    options = parser.parse_args()
    choices = itertools.product((0.0, 0.7, 0.75, 0.8, 0.85, 0.9), (0.0, 0.8, 0.9), (0.0, 0.8, 0.9))
    guards = [Guard(0.6, quality, stability, consistency) for quality, stability, consistency in choices]
    tried = trials(load(STARTER_WEIGHTS, "cpu"), options.scenes, guards)
    for index, guard in enumerate(guards):
        taken = [trial for trial in tried if trial.passes[index]]
        kept = [trial for trial in tried if not trial.passes[index]]
        line = {
            "quality": guard.quality,
            "stability": guard.stability,
            "consistency": guard.consistency,
            "iou_after": round(float(np.mean([t.after for t in taken] + [t.before for t in kept])), 4),
            "refined": round(len(taken) / len(tried), 3),
            "better": round(float(np.mean([trial.after > trial.before for trial in taken])), 3) if taken else None,
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
