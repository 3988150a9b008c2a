"""Whether tuning a Qwen really teaches it: a tiny one, from random weights, on scenes that it has never seen.

First all of its weights learn one kind of scene: where the shapes are, as if all were of one class (questions that are
always the same show a blind model soonest that the picture matters), then which they are. Then an adapter over them
learns another kind. All is measured on scenes of other seeds than those that were learned from. A run that was
interrupted goes on from its checkpoints.
"""

from __future__ import annotations

import functools
import itertools
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.alone import Alone, home_of
from benchmarks.qwen_scenes import CLASSES, SIDE, samples
from benchmarks.report import Figure
from tator_ml.vlm.prompts import PromptStyle, compose
from tator_ml.vlm.registry import QwenEntry, qwen_registry
from tator_sdk.geometry import Xyxy, iou_xyxy
from tator_sdk.qwen_request import QwenTraining
from tator_sdk.settings import Settings
from training.qwen import evaluate
from training.qwen.base import Loaded, device_of, load
from training.qwen.compare import compare
from training.qwen.scores import Scores, score
from training.qwen.tiny import Family, Shape, save_tiny
from training.qwen.train import Tuned, train
from training.samples import Sample, Samples

FAMILY: Family = "qwen3_vl"
SHAPE = Shape(hidden=128, layers=3, head=32, vision_hidden=64, vision_depth=2, max_side=SIDE, min_side=SIDE // 2)
STYLE = PromptStyle(
    system_prompt="", template="{items} as bbox_2d"
)  # few tokens: each costs as much as one of the image
WHOLE_SEEDS, ADAPTER_SEEDS = range(4000), range(2000)
UNSEEN = range(1_000_000, 1_000_400)

PLACES: dict[str, Any] = {"method": "whole", "learning_rate": 1e-3, "epochs": 8, "points": 0.0}
NAMES: dict[str, Any] = {"method": "whole", "learning_rate": 5e-4, "epochs": 4, "points": 0.0}
ADAPTER: dict[str, Any] = {"method": "lora", "learning_rate": 2e-3, "epochs": 8, "points": 0.0}


@functools.cache
def home() -> Path:
    """Where trainings go on, and where their models stay."""
    options = "benchmarks.qwen_learning", "benchmarks.qwen_scenes"
    return home_of("qwen", *options, "training.qwen", "training.samples", "training.tuning")


def measure() -> Iterator[Figure]:
    """Train both, and measure before and after."""
    settings = Settings(home=home() / "home", offline=True)
    base = _base()
    filled, outlined = (samples(kind, UNSEEN) for kind in ("filled", "outlined"))
    before = _f1(_entry(settings, base), settings, filled)
    yield Figure("qwen.f1_before", before, "F1", "lower", 0.05)
    yield Figure("qwen.f1_constant", constant_f1(filled), "F1", "lower", 0.05)
    whole = _whole(settings, base)
    after = _scores(_entry(settings, whole), settings, filled)
    yield Figure("qwen.f1_after", after.f1, "F1", "higher", 0.5)
    yield Figure("qwen.iou_after", after.mean_iou, "mean IoU", "higher")
    other = _f1(_entry(settings, whole), settings, outlined)
    yield Figure("qwen.f1_other_kind", other, "F1", "lower")
    adapter = _adapter(settings, whole)
    tuned = replace(_entry(settings, whole), adapter=adapter)
    yield Figure("qwen.f1_lora", _f1(tuned, settings, outlined), "F1", "higher", max(other, 0.05) + 0.05)
    yield Figure("qwen.f1_lora_on_first_kind", _f1(tuned, settings, filled), "F1", "higher")
    first = _entry(settings, whole)
    takes_over = _decided(tuned, first, settings, samples("outlined", ADAPTER_SEEDS), outlined)
    yield Figure("qwen.gate_lets_better_in", float(takes_over), "", "higher", 1)
    made_worse = _decided(tuned, first, settings, samples("filled", WHOLE_SEEDS), filled)
    yield Figure("qwen.gate_lets_worse_in", float(made_worse), "", "lower", 0)


def _decided(
    candidate: QwenEntry, active: QwenEntry, settings: Settings, learned: list[Sample], unseen: list[Sample]
) -> bool:
    """Whether the gate activates the candidate; both are asked as in service."""
    request = QwenTraining(dataset="scenes", compare_pictures=100, max_new_tokens=64)
    pictures = Samples(tuple(learned), tuple(unseen), CLASSES, "scenes")
    decision = compare(candidate, active, pictures, request, settings, Alone(home() / "gate"))
    print(f"  {decision.reason}", flush=True)
    return decision.activate


def constant_f1(pictures: list[Sample]) -> float:
    """The best that one fixed box with one fixed label reaches, on the very pictures that it is measured on."""
    grid = np.arange(0, SIDE + 1, 8)
    best = 0
    for left, right in itertools.combinations(grid, 2):
        for top, bottom in itertools.combinations(grid, 2):
            box: Xyxy = (float(left), float(top), float(right), float(bottom))
            hits = [one.objects[0].label for one in pictures if iou_xyxy(box, one.objects[0].box) >= 0.5]
            best = max(best, *(hits.count(name) for name in CLASSES))
    return best / len(pictures)  # one answer and one object a picture: F1 is the share that is right


def _base() -> Path:
    folder = home() / "base"
    if not (folder / "config.json").exists():
        asked = [compose("", (*CLASSES, "shape"), STYLE, "bbox").user]
        said = [
            f'[{{"{key}": [1, 2, 3], "label": "{name}"}}]'
            for key in ("bbox_2d", "point_2d")
            for name in (*CLASSES, "shape")
        ]
        save_tiny(folder, FAMILY, SHAPE, [*asked, "system\n", "user\n", "assistant\n", *said] * 5)
    return folder


def _entry(settings: Settings, folder: Path) -> QwenEntry:
    return replace(qwen_registry(settings).resolve(str(folder.resolve())), style=STYLE)


def _scores(entry: QwenEntry, settings: Settings, pictures: list[Sample]) -> Scores:
    loaded: Loaded = load(entry, settings, device_of(settings, None), SIDE)
    ask = functools.partial(evaluate.answers, loaded.model, loaded.encoder, max_new_tokens=64)
    return score(evaluate.measure(ask, loaded.encoder.coordinates, pictures, CLASSES, STYLE, batch=50))


def _f1(entry: QwenEntry, settings: Settings, pictures: list[Sample]) -> float:
    return _scores(entry, settings, pictures).f1


def _whole(settings: Settings, base: Path) -> Path:
    places = [one_class(sample) for sample in samples("filled", WHOLE_SEEDS)]
    sighted = _tuned(settings, base, "places", places, ("shape",), PLACES) / "model"
    return _tuned(settings, sighted, "names", samples("filled", WHOLE_SEEDS), CLASSES, NAMES) / "model"


def _adapter(settings: Settings, whole: Path) -> Path:
    return _tuned(settings, whole, "adapter", samples("outlined", ADAPTER_SEEDS), CLASSES, ADAPTER) / "adapter"


def one_class(sample: Sample) -> Sample:
    """The sample with its object called a shape."""
    return replace(sample, objects=tuple(replace(one, label="shape") for one in sample.objects))


def _tuned(
    settings: Settings, base: Path, name: str, pictures: list[Sample], classes: tuple[str, ...], options: dict[str, Any]
) -> Path:
    """Folder of the best weights of a training, which is done only once."""
    done = home() / f"{name}.json"
    if done.exists():
        return Path(json.loads(done.read_text())["folder"])
    job = Alone(home() / name)
    request = QwenTraining(
        dataset="scenes",
        base=str(base.resolve()),
        system_prompt=STYLE.system_prompt,
        template=STYLE.template,
        batch=16,
        accumulate=1,
        patience=0,
        evaluate_every=300,
        checkpoint_every=300,
        max_new_tokens=64,
        max_image_dim=SIDE,
        **options,
    )
    held_out = len(pictures) // 10
    learned = Samples(tuple(pictures[held_out:]), tuple(pictures[:held_out]), classes, f"{name} of scenes")
    made: Tuned = train(request, learned, settings, job)
    done.write_text(json.dumps({"folder": str(made.folder), "steps": made.steps, "evaluations": made.evaluations}))
    shutil.rmtree(job.folder / "checkpoints", ignore_errors=True)
    return made.folder


def main() -> None:
    """The learning alone."""
    for figure in measure():
        print(json.dumps(figure.as_json()), flush=True)


if __name__ == "__main__":
    main()
