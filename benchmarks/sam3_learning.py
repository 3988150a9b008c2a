"""Whether tuning a SAM 3 really teaches it: a tiny one, from nothing, to find shapes by phrases it has never heard.

It learns by the product's own trainer in three stages: where shapes are, whatever they are called; single words, for
colours and for shapes; and phrases of both. Some combinations are never shown or said, and it is those that it is
asked for in the end, on scenes with others that are like them in colour or in shape. A run that was interrupted goes
on from its checkpoints.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import sam3_scenes as scenes
from benchmarks.alone import Alone, home_of
from benchmarks.report import Figure
from tator_sdk.sam3_request import Sam3Training
from training.sam3.evaluate import evaluate
from training.sam3.scores import Scores, tally
from training.sam3.tiny import Shape, save_tiny
from training.sam3.train import train
from training.samples import Sample, Samples

SHAPE = Shape(
    side=scenes.SIDE, patch=12, vision_hidden=96, vision_layers=3, window=8, hidden=80, layers=2, queries=25,
    text_hidden=64, text_layers=1, tokens=600, dropout=0.0,
)  # fmt: skip
SEEDS = range(3000)
WATCHED = range(900_000, 900_040)
"""Scenes by which the best weights of a stage are chosen, of trained combinations."""
UNSEEN = range(1_000_000, 1_000_300)


@dataclass(frozen=True)
class Stage:
    """One training.

    Attributes:
        name: of its folder.
        naming: what objects are labelled as.
        classes: that there are.
        options: of the request.
    """

    name: str
    naming: scenes.Naming
    classes: tuple[str, ...]
    options: dict[str, Any]


_RATES: dict[str, Any] = {"learning_rate": 1e-3, "vision_rate": 1e-3, "text_rate": 1e-3, "layer_decay": 1.0}
_COMMON: dict[str, Any] = {
    **_RATES, "weight_decay": 0.01, "clip": 1.0, "accumulate": 1, "many_weight": 0.0, "presence_weight": 2.0,
    "masks": "never", "precision": "fp32", "gradient_checkpointing": "off", "patience": 0, "epochs": 1000.0,
    "warm_up": 50, "cool_down": 0, "schedule": "constant", "checkpoint_every": 100, "evaluate_every": 300,
}  # fmt: skip
"""Of a model that has everything to learn: rates as for a beginning, and boxes not outweighed by the presence."""
WORDS = (*scenes.COLOURS, *scenes.SHAPES)
STAGES = (
    Stage("places", scenes.as_shape, ("shape",), {"batch": 16, "most_steps": 300, "negatives": 0.0}),
    Stage("words", scenes.by_word, WORDS, {"batch": 4, "most_steps": 800}),
    Stage("phrases", scenes.by_phrase, scenes.TRAINED, {"batch": 6, "most_steps": 1800, "schedule": "cosine"}),
)


@functools.cache
def home() -> Path:
    """Where trainings go on, and where their models stay."""
    options = "benchmarks.sam3_learning", "benchmarks.sam3_scenes"
    return home_of("sam3", *options, "training.sam3", "training.samples", "training.tuning")


def measure() -> Iterator[Figure]:
    """Train, and measure before and after."""
    base = _base()
    yield Figure("sam3.ap50_before", _scores(base, scenes.HELD_OUT, True).ap50, "AP50", "lower", 0.05)
    model, seconds = base, 0.0
    for stage in STAGES:
        model, spent = _learned(stage, model)
        seconds += spent
    after = _scores(model, scenes.HELD_OUT, True)
    print(f"  {json.dumps(after.as_json())}", flush=True)
    yield Figure("sam3.ap50_after", after.ap50, "AP50", "higher", 0.3)
    yield Figure("sam3.ap_after", after.ap, "AP", "higher")
    yield Figure("sam3.ap50_colour_alone", half_understood(0), "AP50", "lower")
    yield Figure("sam3.ap50_shape_alone", half_understood(1), "AP50", "lower")
    yield Figure("sam3.ap50_trained", _scores(model, scenes.TRAINED, False).ap50, "AP50", "higher")
    yield Figure("sam3.seconds", seconds, "s", "lower")


def _base() -> Path:
    folder = home() / "base"
    if not (folder / "config.json").exists():
        save_tiny(folder, SHAPE, ["shape", *WORDS] * 5, prepared=True)
    return folder


def _scores(model: Path, classes: tuple[str, ...], held_out: bool) -> Scores:
    """Of answers to each of the phrases on each unseen scene, whether it is there or not."""
    pictures = scenes.samples(UNSEEN, held_out)
    return evaluate(model, pictures, classes, {name: (name,) for name in classes}, "cpu").scores


def half_understood(word: int) -> float:
    """AP50 of perfect boxes around whatever fits one word of each held-out phrase: 0 its colour, 1 its shape."""
    rng = np.random.default_rng(0)
    truth, found = [], []
    for seed in UNSEEN:
        things = scenes.scene(seed, held_out=True).things
        truth.append([(one.phrase, one.box) for one in things if one.phrase in scenes.HELD_OUT])
        found.append(
            [
                (phrase, float(rng.uniform()), one.box)  # which of them comes first is chance
                for phrase in scenes.HELD_OUT
                for one in things
                if phrase.split()[word] in (one.hue, one.shape)
            ]
        )
    return tally(truth, found, scenes.HELD_OUT).scores.ap50


def _learned(stage: Stage, base: Path) -> tuple[Path, float]:
    """Folder of the model that a stage made, which is done only once, and the seconds that it took."""
    done = home() / f"{stage.name}.json"
    keep = home() / f"{stage.name}-model"
    if not done.exists():
        job = Alone(home() / stage.name)
        request = Sam3Training(dataset="scenes", base=str(base), **(_COMMON | stage.options))
        made = train(request, _pictures(stage), base, job, "cpu", keep)
        about = {"seconds": round(job.seconds, 1), "steps": made.steps, "evaluations": made.evaluations}
        done.write_text(json.dumps(about))
        shutil.rmtree(job.folder / "checkpoints", ignore_errors=True)
    return keep, float(json.loads(done.read_text())["seconds"])


def _pictures(stage: Stage) -> Samples:
    learned, watched = (_asked(seeds, stage) for seeds in (SEEDS, WATCHED))
    return Samples(learned, watched, stage.classes, "generated scenes")


def _asked(seeds: range, stage: Stage) -> tuple[Sample, ...]:
    return scenes.samples(seeds, naming=stage.naming)


def main() -> None:
    """The learning alone."""
    for figure in measure():
        print(json.dumps(figure.as_json()), flush=True)


if __name__ == "__main__":
    main()
