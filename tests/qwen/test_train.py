"""Training: the loss falls, only the adapter learns, a killed one goes on as if nothing had been, and bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainingArguments

from tator_ml.vlm.registry import QwenEntry
from tator_sdk.errors import TatorError
from tator_sdk.images import ImageError
from tator_sdk.qwen_request import QwenTraining
from tests.qwen.material import CLASSES, Watched, request, sample, samples, settings_of
from training.checkpoints import COMPLETE, checkpoints_in, newest_checkpoint
from training.job import JobCancelled
from training.qwen import train as train_module
from training.qwen.base import BaseError, Loaded, load_to_train
from training.qwen.conversations import Drawing
from training.qwen.draws import Draws, Plan
from training.qwen.tiny import FAMILIES
from training.qwen.train import Tuned, train
from training.samples import NothingToLearn, Samples

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


def run(base: Path, home: Path, wanted: QwenTraining, data: Samples | None = None, **job: Any) -> tuple[Tuned, Watched]:
    settings = settings_of(home, base)
    watched = Watched(settings, **job)
    return train(wanted, data or samples(), settings, watched), watched


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_on_one_batch_falls_by_nine_tenths(bases: dict[str, Path], tmp_path: Path, family: str) -> None:
    pair = tuple(sample(f"{n}", [("car", (8.0 + 20 * n, 14.0, 50.0 + 20 * n, 70.0))], seed=n) for n in range(2))
    data = Samples(pair, pair[:1], ("car",), "one batch")
    wanted = request(
        method="whole", epochs=45, learning_rate=6e-3, points=0, noise=0, evaluate_every=1000, checkpoint_every=1000
    )
    tuned, job = run(bases[family], tmp_path, wanted, data)
    losses = [point["loss"] for point in job.points if "loss" in point]
    assert len(losses) == tuned.steps == 45 and losses[-1] <= 0.1 * losses[0], (losses[0], losses[-1])
    assert tuned.trained == tuned.weights


@pytest.mark.parametrize("method", ["lora", "qlora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_adapter_learns(
    bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, method: str
) -> None:
    models: list[Any] = []
    before: dict[str, torch.Tensor] = {}

    def loading(*words: Any) -> Loaded:
        loaded = load_to_train(*words)
        models.append(loaded.model)
        before.update({name: weights.detach().clone() for name, weights in loaded.model.named_parameters()})
        return loaded

    monkeypatch.setattr(train_module, "load_to_train", loading)
    tuned, _ = run(bases[family], tmp_path, request(method=method, epochs=1))
    after = dict(models[0].named_parameters())
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed and all("lora_B" in name or "lora_A" in name for name in changed)
    assert all(".language_model." in name and ".self_attn." in name for name in changed)
    written = load_file(tuned.folder / "adapter" / "adapter_model.safetensors")
    assert written and all("lora_" in name for name in written)
    assert sum(one.numel() for one in written.values()) == tuned.trained < tuned.weights / 10
    four_bits = [one for one in models[0].modules() if type(one).__name__ == "Linear4bit"]
    assert bool(four_bits) == (method == "qlora")
    if four_bits:
        state = four_bits[0].weight.quant_state
        assert state.quant_type == "nf4" and state.nested


# Stopped and taken up again

KILLED = """
import os, signal, sys
from pathlib import Path
import torch; torch.set_num_threads(1)
from tests.qwen.material import Watched, request, samples, settings_of
from training.qwen.train import train

class Dies(Watched):
    def progress(self, done, total, what):
        if what == "training" and done == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)

settings = settings_of(Path(sys.argv[1]), Path(sys.argv[2]))
train(request(epochs=4, evaluate_every=3, dropout=0.1), samples(), settings, Dies(settings, "watched"))
"""


@pytest.mark.faults
def test_a_killed_training_ends_as_if_nothing_had_been(base: Path, tmp_path: Path) -> None:
    wanted = request(epochs=4, evaluate_every=3, dropout=0.1)
    whole, _ = run(base, tmp_path / "whole", wanted)
    died = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "killed"), str(base), "5"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=False, timeout=120,
    )  # fmt: skip
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()[-2000:]
    again, job = run(base, tmp_path / "killed", wanted)
    assert "going on from step 4" in job.lines
    assert again.evaluations == whole.evaluations and len(whole.evaluations) == 3
    one, other = (tuned.folder / "adapter" / "adapter_model.safetensors" for tuned in (again, whole))
    assert one.read_bytes() == other.read_bytes()


def test_a_checkpoint_that_a_kill_cut_short_is_not_gone_on_from(base: Path, tmp_path: Path) -> None:
    with pytest.raises(JobCancelled):
        run(base, tmp_path, request(epochs=4), stop_at=5)
    folder = settings_of(tmp_path, base).home / "jobs" / "watched"
    newest = newest_checkpoint(folder)
    assert newest is not None and newest.name == "checkpoint-4"
    (newest / COMPLETE).unlink()
    (newest / "optimizer.pt").write_bytes(b"half")
    _, job = run(base, tmp_path, request(epochs=4))
    assert "going on from step 2" in job.lines


def test_no_pickle_of_the_arguments_is_left(base: Path, tmp_path: Path) -> None:
    _, job = run(base, tmp_path, request(epochs=1))
    assert list(checkpoints_in(job.folder).glob("checkpoint-*")) and not list(job.folder.rglob("training_args.bin"))


def test_cancelling_stops_at_the_next_batch(base: Path, tmp_path: Path) -> None:
    with pytest.raises(JobCancelled):
        run(base, tmp_path, request(epochs=4), stop_at=3)


def test_a_training_that_was_over_is_not_done_again(base: Path, tmp_path: Path) -> None:
    first, _ = run(base, tmp_path, request())
    again, job = run(base, tmp_path, request())
    assert "training" not in job.whats
    assert (again.folder, again.evaluations, again.steps) == (first.folder, first.evaluations, first.steps)


def test_it_stops_when_nothing_gets_better(base: Path, tmp_path: Path) -> None:
    # a rate that wrecks the adapter: the first evaluation stays the best
    tuned, job = run(base, tmp_path, request(epochs=20, evaluate_every=1, patience=2, learning_rate=1.0, clip=1e6))
    worst = max(range(len(tuned.evaluations)), key=lambda index: tuned.evaluations[index]["loss"])
    assert tuned.steps < tuned.planned and worst > 0
    assert tuned.evaluations.index(tuned.best) == len(tuned.evaluations) - 3
    assert [path.name for path in job.folder.glob("best-*")] == [f"best-{tuned.best['step']}"]


# What is drawn


def test_each_round_draws_every_picture_once_and_anew(base: Path, tmp_path: Path) -> None:
    data = samples(train=5)
    loaded = load_to_train(QwenEntry(id="base", model_id=str(base)), request(), settings_of(tmp_path, base), CPU)
    drawing = Drawing(train_module.style_of(request()))
    draws = Draws(data, drawing, loaded.encoder, 7, 20)
    rounds = [[draws.conversation(number) for number in range(begin, begin + 5)] for begin in range(0, 20, 5)]
    for one in rounds:
        assert {conversation.sample.image for conversation in one} == {one.image for one in data.train}
    assert len({tuple(one.sample.image for one in part) for part in rounds}) > 1
    assert len({(one.asked, one.output) for part in rounds for one in part if one.sample.image == "0"}) > 1
    assert draws.conversation(13) == Draws(data, drawing, loaded.encoder, 7, 20).conversation(13)


def test_the_plan_counts_steps_of_the_optimiser() -> None:
    plan = Plan.of(request(batch=2, accumulate=4, epochs=3), samples(train=17))
    assert (plan.each, plan.round, plan.steps, plan.evaluate_every) == (8, 3, 9, 3)


# Bad input


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"base": "no/where"}, "no/where"),
        ({"base": "/nowhere"}, "no folder /nowhere"),
        ({"targets": ("w_proj",)}, "no projections named w_proj"),
        ({"method": "qlora", "device": "meta"}, "no 4-bit weights on meta; use --method lora"),
    ],
)
def test_what_cannot_be_tuned_is_said_in_a_sentence(base: Path, tmp_path: Path, changes: Any, said: str) -> None:
    with pytest.raises(TatorError, match=said) as caught:
        run(base, tmp_path, request(**changes))
    assert "\n" not in str(caught.value)


def test_a_damaged_base_is_said(base: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in base.iterdir():
        content = path.read_bytes()
        (broken / path.name).write_bytes(content[: len(content) // 2] if path.suffix == ".safetensors" else content)
    with pytest.raises(BaseError, match="damaged or of another kind"):
        run(broken, tmp_path, request())


def test_an_adapter_is_not_tuned_again(base: Path, tmp_path: Path) -> None:
    entry = QwenEntry(id="qwen-1-abcdef", model_id=str(base), adapter=tmp_path)
    with pytest.raises(BaseError, match="qwen-1-abcdef is an adapter"):
        load_to_train(entry, request(), settings_of(tmp_path, base), CPU)


def test_without_bitsandbytes_another_method_is_named(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(BaseError, match=r"needs bitsandbytes.*use --method lora"):
        run(base, tmp_path, request(method="qlora"))


def test_too_few_pictures_are_said(base: Path, tmp_path: Path) -> None:
    with pytest.raises(NothingToLearn):
        run(base, tmp_path, request(), Samples(samples().train, (), CLASSES, ""))


def test_evaluations_are_written_as_json(base: Path, tmp_path: Path) -> None:
    tuned, job = run(base, tmp_path, request(epochs=1))
    kept = json.loads((job.folder / "evaluations.json").read_text())
    assert kept == list(tuned.evaluations) and {"step", "round", "loss", "map50", "mean_iou", "label_f1"} <= set(
        kept[0]
    )
    assert any("validation_loss" in point for point in job.points)


def test_the_trainer_keeps_to_the_device_that_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    current: list[Any] = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    train_module._only_on(arguments, torch.device("cuda:1"))
    assert arguments.device == current[0] == torch.device("cuda", 1) and arguments.n_gpu == 1
    assert arguments.distributed_state is not None and arguments.distributed_state.device == torch.device("cuda", 1)


def unreadable() -> Any:
    raise ImageError("The picture is damaged.")


def test_a_picture_that_breaks_meanwhile_stops_nothing(base: Path, tmp_path: Path) -> None:
    data = samples(train=3, held_out=3)
    broken = Samples(
        (replace(data.train[0], read=unreadable), *data.train[1:]),
        (replace(data.held_out[0], read=unreadable), *data.held_out[1:]),
        CLASSES,
        "",
    )
    tuned, job = run(base, tmp_path, request(epochs=1, evaluate_pictures=2), broken)
    assert tuned.steps == tuned.planned and tuned.best["pictures"] == 2
    assert job.lines.count("left out: The picture is damaged.") == 2
    nothing = Samples(data.train, tuple(replace(one, read=unreadable) for one in data.held_out), CLASSES, "")
    with pytest.raises(NothingToLearn, match="None of the held-out"):
        run(base, tmp_path / "other", request(), nothing)


def test_too_little_memory_is_said(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("training.qwen.train.Trainer.training_step", full)
    with pytest.raises(BaseError, match="too little memory to train this; use --method qlora"):
        run(base, tmp_path, request())
