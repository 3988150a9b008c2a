"""Training: one batch is learned by heart, what stays stays bit for bit, and what was killed goes on."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate import PartialState, debug_launcher
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from transformers import Sam3Model, Sam3VideoModel

from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings
from tests.sam3_training.material import CLASSES, WORDS, request, sample, samples
from training.checkpoints import COMPLETE, checkpoints_in, newest_checkpoint, step_of
from training.job import JobCancelled, LocalJob
from training.sam3.checkpoints import LEARNED
from training.sam3.evaluate import evaluate
from training.sam3.memory import TooLarge
from training.sam3.tiny import Shape, save_tiny
from training.sam3.train import Tuned, train
from training.sam3.watch import CURVE
from training.sam3.weights import BaseError, assemble
from training.samples import NothingToLearn, Samples


class Watched(LocalJob):
    """A job whose log is kept, and that a person stops at a step."""

    def __init__(self, home: Path, stop_at: int | None = None) -> None:
        super().__init__(Settings(home=home, device="cpu", offline=True), "watched")
        self.lines: list[str] = []
        self._stop_at = stop_at

    def log(self, line: str) -> None:
        self.lines.append(line)

    def progress(self, done: int, total: int, what: str) -> None:
        if what == "training" and done == self._stop_at:
            raise JobCancelled


def run(base: Path, home: Path, data: Samples | None = None, stop_at: int | None = None, **changes: Any) -> Tuned:
    return train(request(**changes), data or samples(), base, Watched(home, stop_at), "cpu", home / "model")


def losses(home: Path) -> dict[int, float]:
    points = [json.loads(line) for line in (home / "jobs/watched" / CURVE).read_text().splitlines()]
    return {point["step"]: point["loss"] for point in points if "loss" in point}


def hashes(folder: Path) -> dict[str, str]:
    weights = load_file(folder / "model.safetensors")
    return {name: hashlib.sha256(one.numpy().tobytes()).hexdigest() for name, one in weights.items()}


def changed(base: Path, tuned: Tuned) -> set[str]:
    before, after = hashes(base), hashes(tuned.folder)
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


def test_one_batch_is_learned_by_heart(tmp_path: Path) -> None:
    shape = Shape(side=56, vision_hidden=64, hidden=64, queries=9, dropout=0.0)
    base = save_tiny(tmp_path / "base", shape, WORDS, prepared=True)
    pair = tuple(
        sample(f"{n}", [("car", (8.0 + 20 * n, 14.0, 50.0 + 20 * n, 70.0)), ("bus", (4.0, 4.0, 20.0, 30.0))][: n + 1])
        for n in range(2)
    )
    tuned = run(
        base, tmp_path, Samples(pair, pair, CLASSES, "one batch"), most_steps=50, epochs=1000, learning_rate=2e-3,
        vision_rate=2e-3, text_rate=2e-3, layer_decay=1, weight_decay=0, clip=1.0, schedule="cosine", warm_up=10,
        many_weight=0, evaluate_every=50, checkpoint_every=1000, evaluate_pictures=2,
    )  # fmt: skip
    found = losses(tmp_path)
    assert found[50] <= 0.1 * found[1], (found[1], found[50])
    assert tuned.best["per_class"] == {"car": 1.0, "bus": 1.0}
    again = evaluate(tuned.folder, pair, CLASSES, tuned.phrases, "cpu").scores
    assert again.as_json() == {name: tuned.best[name] for name in again.as_json()}


def test_boxes_alone_leave_what_makes_masks_bit_for_bit(base: Path, tmp_path: Path) -> None:
    tuned = run(base, tmp_path, masks="never", data=samples(outlined=True), learning_rate=1e-2, vision_rate=1e-2)
    learned = changed(base, tuned)
    assert {name.split(".")[1] for name in learned} == {
        "detr_decoder", "detr_encoder", "dot_product_scoring", "text_encoder", "text_projection", "vision_encoder",
    }  # fmt: skip
    assert all(name.startswith("detector_model.") for name in learned)  # clicks keep what is theirs
    necks = {name.split(".")[4] for name in learned if ".neck." in name}
    assert necks == {"2"} and len(learned) > 100
    Sam3Model.from_pretrained(tuned.folder)
    Sam3VideoModel.from_pretrained(tuned.folder)
    assert (tuned.folder / "tokenizer.json").exists() and (tuned.folder / "config.json").exists()
    assert tuned.steps == tuned.planned == 4 and not tuned.masks


def test_outlines_teach_masks(base: Path, tmp_path: Path) -> None:
    tuned = run(base, tmp_path, data=samples(outlined=True), learning_rate=1e-2, most_steps=2)
    learned = changed(base, tuned)
    assert tuned.masks and any(".mask_decoder.instance_projection." in name for name in learned)
    assert any(".neck.fpn_layers.0." in name for name in learned)
    point = json.loads((tmp_path / "jobs/watched" / CURVE).read_text().splitlines()[0])
    assert point["loss_mask"] > 0 and point["loss_dice"] > 0


def test_frozen_encoders_stay_bit_for_bit(base: Path, tmp_path: Path) -> None:
    tuned = run(base, tmp_path, most_steps=2, freeze_vision=True, freeze_text=True, exemplars=0.5, learning_rate=1e-2)
    learned = changed(base, tuned)
    assert not [name for name in learned if ".backbone." in name or ".text_encoder." in name]
    assert any(".geometry_encoder." in name for name in learned)


def test_an_adapter_learns_alone_and_is_merged(base: Path, tmp_path: Path) -> None:
    tuned = run(base, tmp_path, method="lora", learning_rate=1e-2, vision_rate=1e-2, text_rate=1e-2)
    learned = changed(base, tuned)
    assert learned and all(
        name.split(".")[-2] in {"q_proj", "k_proj", "v_proj", "o_proj", "out_proj"} for name in learned
    )
    assert all(name.endswith(".weight") and "mask_decoder" not in name for name in learned)
    assert tuned.trained < tuned.weights / 4
    served = evaluate(tuned.folder, samples().held_out[:1], CLASSES, tuned.phrases, "cpu").scores
    assert served.as_json() == {name: tuned.best[name] for name in served.as_json()}


def test_a_limited_training_with_a_balanced_sampler_runs(base: Path, tmp_path: Path) -> None:
    """Which crashed the original."""
    many = [sample(f"{n}", [("car", (10.0, 14.0, 60.0, 70.0))]) for n in range(12)]
    few = [sample("bus", [("bus", (10.0, 14.0, 60.0, 70.0))])]
    data = Samples((*many, *few), (many[0],), CLASSES, "one rare class")
    job = Watched(tmp_path)
    tuned = train(request(limit=5, sampler="focal", epochs=1), data, base, job, "cpu", tmp_path / "model")
    assert tuned.steps == 3 and any("5 pictures to learn from" in line for line in job.lines)


def test_another_resolution_is_what_the_model_says_afterwards(base: Path, tmp_path: Path) -> None:
    tuned = run(base, tmp_path, most_steps=1, resolution=84)
    assert tuned.resolution == 84
    assert Sam3Model.from_pretrained(tuned.folder).config.image_size == 84
    assert json.loads((tuned.folder / "processor_config.json").read_text())["image_processor"]["size"]["width"] == 84
    assert evaluate(tuned.folder, samples().held_out[:1], CLASSES, tuned.phrases, "cpu").scores.pictures == 1
    with pytest.raises(BaseError, match="70 or 84"):
        run(base, tmp_path, resolution=80)


def test_half_precision_learns_too(base: Path, tmp_path: Path) -> None:
    run(base, tmp_path, data=samples(outlined=True), most_steps=2, precision="bf16", exemplars=0.5)
    assert all(np.isfinite(value) for value in losses(tmp_path).values())


def test_what_cannot_be_learned_is_said(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NothingToLearn, match="outlines"):
        run(base, tmp_path, masks="always")
    with pytest.raises(BaseError, match="no model"):
        run(tmp_path, tmp_path)
    with pytest.raises(TatorError, match="learning-rate"):
        run(base, tmp_path, learning_rate=1.0, clip=1e9, epochs=1000, box_weight=1e30, giou_weight=1e30)
    monkeypatch.setattr("training.sam3.memory.free_bytes", lambda device: 1000)
    with pytest.raises(TooLarge, match="--freeze-vision"):
        run(base, tmp_path)


# Going on


def test_a_cancelled_training_goes_on_with_what_was_to_come(base: Path, tmp_path: Path) -> None:
    about: dict[str, Any] = {
        "epochs": 4,
        "evaluate_every": 2,
        "replay": 0.5,
        "replay_burn_in": 1,
        "accumulate": 2,
        "learning_rate": 1e-3,
    }
    whole = run(base, tmp_path / "whole", **about)
    with pytest.raises(JobCancelled):
        run(base, tmp_path / "parts", **about, stop_at=3)
    kept = newest_checkpoint(tmp_path / "parts/jobs/watched")
    assert kept is not None and step_of(kept) == 3
    promoted = assemble(base, kept / LEARNED, tmp_path / "promoted")
    assert hashes(promoted) != hashes(base) and not list(promoted.glob("optimizer*"))
    tuned = run(base, tmp_path / "parts", **about)
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), abs=1e-5)
    assert tuned.evaluations == whole.evaluations
    assert len(list(checkpoints_in(tmp_path / "parts/jobs/watched").iterdir())) == 2


@pytest.mark.faults
def test_a_killed_training_has_the_curve_of_an_undisturbed_one(base: Path, tmp_path: Path) -> None:
    about: dict[str, Any] = {"epochs": 5, "learning_rate": 1e-3, "checkpoint_every": 2, "evaluate_every": 4}
    curve = tmp_path / "killed/jobs/watched" / CURVE
    worker = os.fork()  # it has what a new interpreter would take long to load
    if not worker:
        run(base, tmp_path / "killed", **about)
        os._exit(0)
    _until(lambda: curve.exists() and curve.read_text().count("\n") >= 5)
    os.kill(worker, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(worker, 0)[1])
    broken = checkpoints_in(curve.parent) / ".checkpoint-99.part"
    broken.mkdir()
    (checkpoints_in(curve.parent) / "checkpoint-98").mkdir()  # without its mark
    whole = run(base, tmp_path / "whole", **about)
    tuned = run(base, tmp_path / "killed", **about)
    assert losses(tmp_path / "killed") == pytest.approx(losses(tmp_path / "whole"), abs=1e-3)
    assert len(losses(tmp_path / "whole")) == 10 and tuned.evaluations == whole.evaluations
    assert all((path / COMPLETE).exists() for path in checkpoints_in(curve.parent).iterdir())


def _shared(base: Path, home: Path) -> None:
    AcceleratorState._reset_state(True)  # the one of this process, which had it to itself
    PartialState._reset_state()
    data = samples(outlined=True)
    tuned = run(base, home, data, batch=1, accumulate=2, epochs=3, learning_rate=1e-3, evaluate_pictures=2)
    (home / f"steps-{PartialState().process_index}").write_text(f"{tuned.steps} {tuned.best['pictures']}")


def test_two_processes_train_one_model(base: Path, tmp_path: Path) -> None:
    debug_launcher(_shared, (base, tmp_path), num_processes=2)  # as ``accelerate launch``, without new interpreters
    assert [(tmp_path / f"steps-{number}").read_text() for number in range(2)] == ["3 2", "3 2"]
    assert len(losses(tmp_path)) == 3 and (tmp_path / "model/model.safetensors").exists()


def _until(true: Callable[[], bool]) -> None:
    for _ in range(1200):
        if true():
            return
        time.sleep(0.02)
    raise AssertionError("nothing came")
