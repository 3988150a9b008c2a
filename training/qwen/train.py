"""Tunes a Qwen-VL on a data set; needs neither Redis nor Label Studio.

Transformers' ``Trainer`` does the steps. Every sample of the whole training is drawn from the seed and its own number,
so that one that was killed goes on from its checkpoint with exactly the samples that were to come.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tator_ml.engine.memory import is_out_of_memory
from tator_ml.vlm.prompts import DEFAULT_SYSTEM, DEFAULT_TEMPLATE, PromptStyle
from tator_ml.vlm.registry import ADAPTER, WHOLE, QwenEntry, qwen_registry
from tator_sdk.files import write_durably
from tator_sdk.qwen_request import QwenTraining
from tator_sdk.settings import Settings
from training.checkpoints import COMPLETE, checkpoints_in, newest_checkpoint, remove_unfinished, step_of
from training.job import Job
from training.qwen.base import BaseError, Loaded, checkpoints_gradients, device_of, load_to_train
from training.qwen.collate import collate
from training.qwen.conversations import Drawing, fixed
from training.qwen.draws import Draws, Plan
from training.qwen.evaluate import answers, mean_loss, measure
from training.qwen.scores import score
from training.samples import NothingToLearn, Sample, Samples, readable

EVALUATIONS = "evaluations.json"
KEPT_CHECKPOINTS = 2
MOST_POINTS = 500  # of the loss, on a job's curve


@dataclass(frozen=True)
class Tuned:
    """What a training made.

    Attributes:
        folder: of the best weights: ``adapter`` or ``model`` lies in it.
        kind: which of the two.
        base: entry that was tuned.
        style: how it was asked.
        best: the evaluation of those weights.
        evaluations: all of them, in order: step, round, loss and scores on held-out pictures.
        steps: of the optimiser, that were done.
        planned: that there would have been without an early end.
        trained: weights that were learned, of ``weights`` in all.
        weights: see there.
    """

    folder: Path
    kind: str
    base: QwenEntry
    style: PromptStyle
    best: Mapping[str, Any]
    evaluations: tuple[Mapping[str, Any], ...]
    steps: int
    planned: int
    trained: int
    weights: int


def style_of(request: QwenTraining) -> PromptStyle:
    """How the model is asked in training, and will be in service."""
    return PromptStyle(
        system_prompt=DEFAULT_SYSTEM if request.system_prompt is None else request.system_prompt,
        template=request.template or DEFAULT_TEMPLATE,
        image_type=request.image_type,
        extra_context=request.context,
    )


def train(request: QwenTraining, samples: Samples, settings: Settings, job: Job) -> Tuned:
    """Tune a model, and keep the weights that were best on held-out pictures.

    A training of the same job that was interrupted goes on from its newest whole checkpoint.

    Args:
        request: what and how; its source is not looked at.
        samples: to learn from and to measure on.
        settings: which base, which device.
        job: takes progress, log and curve; its folder holds the checkpoints.

    Raises:
        TatorError: there is nothing to learn, or the base cannot be loaded.
        JobCancelled: a person asked it to stop.
    """
    if not samples.train or not samples.held_out:
        raise NothingToLearn("There must be pictures to learn from and others to measure on; label more of them.")
    measured = readable(samples.held_out, request.evaluate_pictures, job.log)
    if not measured:
        raise NothingToLearn("None of the held-out pictures can be read; see the job's log.")
    device = device_of(settings, request.device)
    entry = qwen_registry(settings).resolve(request.base)
    job.progress(0, 0, "loading the model")
    torch.manual_seed(request.seed)  # the adapter's first weights are random
    loaded = load_to_train(entry, request, settings, device)
    plan = Plan.of(request, samples)
    trained = sum(one.numel() for one in loaded.model.parameters() if one.requires_grad)
    weights = sum(one.numel() for one in loaded.model.parameters())
    job.log(
        f"{len(samples.train)} pictures to learn from, {len(samples.held_out)} held out, {len(samples.classes)} "
        f"classes; {trained:,} of {weights:,} weights learn, {plan.steps} steps of {plan.each} samples on {device}"
    )
    trainer = _trainer(request, samples, measured, loaded, plan, job, device)
    remove_unfinished(job.folder)  # transformers would count them among those that it keeps
    begun = newest_checkpoint(job.folder)
    if begun is not None:
        job.log(f"going on from step {step_of(begun)}")
    try:
        trainer.train(resume_from_checkpoint=str(begun) if begun else None)
    except Exception as error:
        if is_out_of_memory(error):
            raise BaseError(
                f"{device} has too little memory to train this; use --method qlora, a smaller --max-image-dim, "
                "--batch 1 or --gradient-checkpointing on."
            ) from error
        raise
    watch = next(one for one in trainer.callback_handler.callbacks if isinstance(one, Watch))
    best = watch.best()
    return Tuned(
        folder=watch.kept(best),
        kind=watch.kind,
        base=entry,
        style=style_of(request),
        best=best,
        evaluations=tuple(watch.evaluations),
        steps=trainer.state.global_step,
        planned=plan.steps,
        trained=trained,
        weights=weights,
    )


class Watch(TrainerCallback):
    """Tells the job how the training goes, measures it, keeps the best weights and ends it."""

    def __init__(
        self,
        request: QwenTraining,
        measured: Sequence[Sample],
        classes: Sequence[str],
        loaded: Loaded,
        plan: Plan,
        job: Job,
    ) -> None:
        self.kind = WHOLE if request.method == "whole" else ADAPTER
        self.evaluations: list[dict[str, Any]] = []
        self._request = request
        self._asked = measured
        self._classes = classes
        self._loaded = loaded
        self._plan = plan
        self._job = job

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Take up the evaluations that belong to the checkpoint; later ones will be done again."""
        path = self._job.folder / EVALUATIONS
        kept = json.loads(path.read_text()) if path.exists() else []
        self.evaluations = [one for one in kept if one["step"] <= state.global_step]
        if self._out_of_patience():
            control.should_training_stop = True

    def on_substep_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Tell how far it is, stand aside for clicks, stop if asked."""
        self._job.progress(state.global_step, self._plan.steps, "training")

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Likewise, and measure where it is time."""
        self._job.progress(state.global_step, self._plan.steps, "training")
        if state.global_step % self._plan.evaluate_every == 0 or state.global_step == self._plan.steps:
            self._evaluate(state.global_step)
            control.should_save = True  # so that going on never measures twice
            if self._out_of_patience():
                control.should_training_stop = True

    def on_log(
        self, args: Any, state: TrainerState, control: TrainerControl, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Put the loss on the job's curve."""
        if logs and "loss" in logs:
            about = {"rate": float(logs["learning_rate"]), "gradient": float(logs.get("grad_norm", math.nan))}
            self._job.point(step=state.global_step, loss=float(logs["loss"]), **about)

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Mark a checkpoint as whole, which one that was cut short by a kill never is."""
        (checkpoints_in(self._job.folder) / f"checkpoint-{state.global_step}" / COMPLETE).touch()

    def best(self) -> dict[str, Any]:
        """The evaluation with the best figures, the earliest of several."""
        return max(self.evaluations, key=_goodness)

    def kept(self, evaluation: Mapping[str, Any]) -> Path:
        """The folder of an evaluation's weights."""
        return self._job.folder / f"best-{evaluation['step']}"

    def _out_of_patience(self) -> bool:
        if not self._request.patience or not self.evaluations:
            return False
        return len(self.evaluations) - 1 - self.evaluations.index(self.best()) >= self._request.patience

    def _evaluate(self, step: int) -> None:
        request, classes, job = self._request, self._classes, self._job
        loaded, style = self._loaded, style_of(request)
        tick = _ticking(job, step, self._plan.steps)
        asked = [fixed(sample, classes, style, request.max_detections) for sample in self._asked]
        loss = mean_loss(loaded.model, loaded.encoder, asked, request.batch, tick)
        found = measure(
            lambda part: answers(loaded.model, loaded.encoder, part, request.max_new_tokens),
            loaded.encoder.coordinates, self._asked, classes, style,
            most=request.max_detections, batch=request.batch, step=tick,
        )  # fmt: skip
        scores = score(found)
        one = {"step": step, "round": round(step / self._plan.round, 2), "loss": round(loss, 5), **scores.as_json()}
        self.evaluations.append(one)
        if self.best() is one:
            self._keep(one)
        write_durably(job.folder / EVALUATIONS, json.dumps(self.evaluations, indent=1).encode())
        shown = {name: one[name] for name in ("map50", "f1", "mean_iou", "label_f1")}
        job.point(step=step, validation_loss=loss, **shown)
        job.log(
            f"step {step}: loss {loss:.4f}, mAP@0.5 {scores.map50:.3f}, F1 {scores.f1:.3f}, mean IoU "
            f"{scores.mean_iou:.3f}, label F1 {scores.label_f1:.3f} on {scores.pictures} held-out pictures"
        )

    def _keep(self, evaluation: Mapping[str, Any]) -> None:
        """Write the weights; those that were best before go once these are there."""
        folder = self.kept(evaluation)
        partial = folder.with_name(f".{folder.name}.part")
        shutil.rmtree(partial, ignore_errors=True)
        self._loaded.model.save_pretrained(partial / self.kind, safe_serialization=True)
        if self.kind == WHOLE:
            self._loaded.encoder.processor.save_pretrained(partial / self.kind)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
        steps = {one["step"] for one in self.evaluations}
        for other in self._job.folder.glob("best-*"):
            # one of a step that a resumed training has not reached again belongs to no evaluation
            if other != folder and (step_of(other) < evaluation["step"] or step_of(other) not in steps):
                shutil.rmtree(other, ignore_errors=True)


class _Tuner(Trainer):
    """Transformers' trainer without the one file of a checkpoint that is a pickle and is never read."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        (Path(output_dir or str(self.args.output_dir)) / "training_args.bin").unlink(missing_ok=True)


def _trainer(
    request: QwenTraining, samples: Samples, measured: Sequence[Sample], loaded: Loaded, plan: Plan, job: Job,
    device: torch.device,
) -> Trainer:  # fmt: skip
    half = device.type == "cuda" and torch.cuda.is_bf16_supported()
    if checkpoints_gradients(loaded.model, request):
        loaded.model.gradient_checkpointing_enable({"use_reentrant": False})
    arguments = TrainingArguments(
        output_dir=str(checkpoints_in(job.folder)),
        max_steps=plan.steps,
        per_device_train_batch_size=request.batch,
        gradient_accumulation_steps=request.accumulate,
        learning_rate=request.learning_rate,
        warmup_steps=round(request.warm_up * plan.steps),
        lr_scheduler_type="cosine",
        optim="adamw_torch",
        weight_decay=request.weight_decay,
        max_grad_norm=request.clip,
        bf16=half,
        train_sampling_strategy="sequential",  # the samples are drawn in their order
        save_strategy="steps",
        save_steps=request.checkpoint_every,
        save_total_limit=KEPT_CHECKPOINTS,
        logging_steps=max(1, plan.steps // MOST_POINTS),
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=request.seed,
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=device.type == "cuda",
        use_cpu=device.type == "cpu",
    )
    _only_on(arguments, device)
    drawing = Drawing(style_of(request), request.points, request.negatives, request.noise, request.max_detections)
    pad = loaded.encoder.processor.tokenizer.pad_token_id
    trainer = _Tuner(
        model=loaded.model,
        args=arguments,
        train_dataset=Draws(samples, drawing, loaded.encoder, request.seed, plan.steps * plan.each, job.log),
        data_collator=lambda encoded: collate(encoded, pad),
        callbacks=[Watch(request, measured, samples.classes, loaded, plan, job)],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _only_on(arguments: TrainingArguments, device: torch.device) -> None:
    """Keep the trainer to one device: by itself it takes the first, and spreads batches over all that there are."""
    if device.type != "cuda":
        return
    arguments._n_gpu = 1
    one = torch.device("cuda", device.index or 0)
    torch.cuda.set_device(one)
    arguments.__dict__["_setup_devices"] = one  # the property's cache; there is no public way
    if arguments.distributed_state is not None:
        arguments.distributed_state.device = one


def _goodness(evaluation: Mapping[str, Any]) -> tuple[float, ...]:
    """By the boxes first; while there are none that fit, by what leads there."""
    return (evaluation["map50"], evaluation["f1"], -evaluation["loss"])


def _ticking(job: Job, step: int, steps: int) -> Any:
    return lambda done, total: job.progress(step, steps, f"measuring: picture {done + 1} of {total}")
