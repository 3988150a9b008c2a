"""The training itself: SAM 3's detector learns phrases from labelled boxes, and masks where there are outlines.

The published recipe (https://arxiv.org/abs/2511.16719) in plain PyTorch over transformers' model. One process or
several (``accelerate launch``); an attempt that was killed goes on from its newest checkpoint with exactly what was to
come, since each batch depends on its number alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, gather_object

from tator_ml.engine.memory import is_out_of_memory
from tator_sdk.sam3_request import Sam3Training
from training.checkpoints import newest_checkpoint, step_of
from training.job import Job, JobCancelled
from training.sam3 import checkpoints
from training.sam3.adapter import add_adapter
from training.sam3.batches import Encoder
from training.sam3.draws import Draws, Plan
from training.sam3.evaluate import predict, side_of, truth_of
from training.sam3.forward import How
from training.sam3.freezing import Parts, freeze, groups, set_training
from training.sam3.loop import Answering, Loop
from training.sam3.memory import TooLarge, fitting
from training.sam3.phrases import phrases_of
from training.sam3.replay import Replay
from training.sam3.samplers import Sampler, counted, limited, probabilities
from training.sam3.scores import Scores, tally
from training.sam3.watch import Watch
from training.sam3.weights import assemble, detector_config, load, read_config
from training.samples import NothingToLearn, Sample, Samples, readable

MOST_POINTS = 500  # of the loss, on a job's curve


@dataclass(frozen=True)
class Tuned:
    """What a training made.

    Attributes:
        folder: the whole model in the published layout, with the weights that were best.
        best: the evaluation of those.
        evaluations: all of them, in order: step, round and figures on held-out pictures.
        steps: of the optimiser, that were done.
        planned: that there would have been without an early end.
        trained: weights that were learned, of ``weights`` in all.
        weights: see there.
        phrases: of each class, the first one for measuring.
        resolution: side of the square that pictures were stretched to, pixels.
        masks: whether masks were learned.
        seconds: of this attempt.
    """

    folder: Path
    best: Mapping[str, Any]
    evaluations: tuple[Mapping[str, Any], ...]
    steps: int
    planned: int
    trained: int
    weights: int
    phrases: Mapping[str, tuple[str, ...]]
    resolution: int
    masks: bool
    seconds: float


def train(request: Sam3Training, samples: Samples, base: Path, job: Job, device: str, keep: Path) -> Tuned:
    """Tune a model, and keep the weights that were best on held-out pictures.

    Args:
        request: what and how; its source and base are not looked at.
        samples: to learn from and to measure on.
        base: folder of the model, in the published layout.
        job: takes progress, log and curve; its folder holds the checkpoints.
        device: to train on; several processes have each its own.
        keep: folder that the whole model is written to.

    Raises:
        TatorError: there is nothing to learn, the base cannot be read, or memory is too short.
        JobCancelled: a person asked it to stop; a checkpoint is written first.
    """
    begun = time.monotonic()
    if not samples.train or not samples.held_out:
        raise NothingToLearn("There must be pictures to learn from and others to measure on; label more of them.")
    measured = readable(samples.held_out, request.evaluate_pictures, job.log)
    if not measured:
        raise NothingToLearn("None of the held-out pictures can be read; see the job's log.")
    try:
        training = _Training(request, samples, measured, base, job, accelerator_of(device, request))
        training.run()
    except Exception as error:
        if is_out_of_memory(error):
            raise TooLarge(
                f"{device} has too little memory to train this after all; use --gradient-checkpointing on, "
                "--freeze-vision, --method lora, --batch 1, fewer --most-questions or a smaller --resolution."
            ) from error
        raise
    return training.tuned(keep, begun)


def accelerator_of(device: str, request: Sam3Training) -> Accelerator:
    """The processes that train: the only one on its device, or those of ``accelerate launch``."""
    chosen = torch.device(device)
    if chosen.type == "cuda" and chosen.index is not None:
        torch.cuda.set_device(chosen)  # the only process takes the current one
    # of a batch without exemplars, what reads them has no gradient
    unused = DistributedDataParallelKwargs(find_unused_parameters=request.exemplars > 0)
    return Accelerator(cpu=chosen.type == "cpu", kwargs_handlers=[unused])


def is_half(request: Sam3Training, device: torch.device) -> bool:
    """Whether a training computes in bf16."""
    if request.precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return request.precision == "bf16"


def learns_masks(request: Sam3Training, samples: Samples) -> bool:
    """Whether masks are learned.

    Raises:
        NothingToLearn: they are asked for, and there are no outlines.
    """
    there = any(one.outline is not None for sample in samples.train for one in sample.objects)
    if request.masks == "always" and not there:
        raise NothingToLearn("--masks always needs outlines, and the data set has boxes alone; use --masks never.")
    return request.masks == "always" or (request.masks == "auto" and samples.outlined)


class _Training:
    """A training under way."""

    def __init__(
        self, request: Sam3Training, samples: Samples, measured: tuple[Sample, ...], base: Path, job: Job,
        accelerator: Accelerator,
    ) -> None:  # fmt: skip
        self._request, self._samples, self._measured = request, samples, measured
        self._base, self._job, self._accelerator = base, job, accelerator
        self.phrases = phrases_of(samples, request)
        self.masks = learns_masks(request, samples)
        self._half = is_half(request, accelerator.device)
        config = read_config(base, request.resolution)
        self.side = side_of(config)
        job.progress(0, 0, "estimating memory")
        need = fitting(detector_config(config), request, self.masks, self._half, accelerator.device)
        job.log(f"needs {need.sentence}")
        job.progress(0, 0, "loading the model")
        self._model, processor = load(base, config)
        patch = detector_config(config).vision_config.backbone_config.patch_size
        self._encoder = Encoder(processor, self.side, 4 * self.side // patch if self.masks else 0)
        self._parts = Parts.of(request, self.masks)
        torch.manual_seed(request.seed)  # an adapter's first weights are random
        if request.method == "lora":
            add_adapter(self._model, request, self._parts)
        else:
            freeze(self._model, self._parts)
        self._model.to(accelerator.device)
        self.learned = {name: one for name, one in self._model.named_parameters() if one.requires_grad}
        self._scale = request.alpha / request.rank if request.method == "lora" else 1.0
        self._prepare(need.checkpointing)

    def _prepare(self, checkpointing: bool) -> None:
        request, accelerator = self._request, self._accelerator
        counts = counted(self._samples.train, self._samples.classes)
        chosen = limited(probabilities(counts, request), request.limit, request.seed)
        pictures = tuple(self._samples.train[index] for index in chosen.tolist())
        self.plan = Plan.of(request, len(pictures), accelerator.num_processes)
        draws = Draws(
            pictures, self.phrases, Sampler.of(counts[chosen], request), self._encoder, request, self._job.log
        )
        blocks = len(self._model.vision_encoder.backbone.layers)
        fused = accelerator.device.type in {"cpu", "cuda"}
        self._optimizer = torch.optim.AdamW(groups(self.learned.items(), request, blocks), fused=fused)
        how = How(
            masks=self.masks,
            many=request.many_weight > 0,
            checkpointing=checkpointing,
            still_vision=not self._parts.vision,
            still_text=not self._parts.text,
        )
        module = accelerator.prepare_model(Answering(self._model, how))
        state = self._taken_up()
        self.step = state.step
        replay = Replay(request.replay, request.replay_burn_in, request.replay_kept, request.seed, state.replay)
        self._loop = Loop(module, self._optimizer, draws, replay, request, accelerator, self.plan.steps, self._half)
        main = accelerator.is_main_process
        self.watch = Watch(self._job, request.patience, state.evaluations, state.step, writes=main)
        trained, weights = self.counts()
        self._job.log(
            f"{len(pictures)} pictures to learn from, {len(self._samples.held_out)} held out, "
            f"{len(self._samples.classes)} classes; {trained:,} of {weights:,} weights learn, {self.plan.steps} steps "
            f"of {self.plan.each} pictures on {accelerator.device}"
            + (f", {accelerator.num_processes} processes" if accelerator.num_processes > 1 else "")
        )

    def _taken_up(self) -> checkpoints.State:
        """The newest checkpoint's state, its weights in place; that of a beginning where there is none."""
        begun = newest_checkpoint(self._job.folder)
        if begun is None:
            return checkpoints.State(0, (), ())
        self._job.log(f"going on from step {step_of(begun)}")
        return checkpoints.read(begun, self.learned, self._optimizer)

    def counts(self) -> tuple[int, int]:
        """Weights that learn, and all."""
        whole = sum(one.numel() for one in self._model.parameters())
        return sum(one.numel() for one in self.learned.values()), whole

    def run(self) -> None:
        """Train to the end, or until it gets no better."""
        try:
            while self.step < self.plan.steps and not self.watch.out_of_patience():
                set_training(self._model, self._parts)
                told = self._loop.step(self.step, self._tick)
                self.step += 1
                if self.step % max(1, self.plan.steps // MOST_POINTS) == 0 and self._accelerator.is_main_process:
                    about = {f"loss_{name}": value for name, value in told.parts.items()}
                    self.watch.point(step=self.step, loss=told.loss, rate=told.rate, gradient=told.gradient, **about)
                self._mark()
        except JobCancelled:
            if self._accelerator.num_processes == 1 and self.step:
                self._write()
            raise

    def _tick(self) -> None:
        self._job.progress(self.step, self.plan.steps, "training")

    def _mark(self) -> None:
        """Measure and write where it is time."""
        done = self.step == self.plan.steps
        measure = done or self.step % self.plan.evaluate_every == 0
        if measure:
            scores = self._measure()
            if self._accelerator.is_main_process:
                turn = self.step / self.plan.round
                self.watch.measured(self.step, turn, scores, self.learned, self._scale)
            else:
                self.watch.evaluations.append({"step": self.step, **scores.as_json()})
        if measure or self.step % self._request.checkpoint_every == 0:
            self._write()  # with each evaluation, so that going on never measures twice
        self._accelerator.wait_for_everyone()

    def _measure(self) -> Scores:
        """Figures on held-out pictures; processes share the work."""
        count, mine = self._accelerator.num_processes, self._accelerator.process_index

        def tick(done: int, total: int) -> None:
            self._job.progress(self.step, self.plan.steps, f"measuring: picture {done + 1} of {total}")

        classes = self._samples.classes
        found = predict(
            self._model, self._encoder, self._measured[mine::count], classes, self.phrases, half=self._half, step=tick
        )
        gather: Any = gather_object
        shared = found if count == 1 else gather(found)
        order = [sample for process in range(count) for sample in self._measured[process::count]]
        return tally([truth_of(sample, classes) for sample in order], shared, classes).scores

    def _write(self) -> None:
        if self._accelerator.is_main_process:
            replay = tuple(tuple(pair) for pair in self._loop.replay.state())
            evaluations = tuple(self.watch.evaluations)
            state = checkpoints.State(self.step, evaluations, replay, self._request.resolution)
            checkpoints.write(self._job.folder, self.learned, self._optimizer, state, self._scale)

    def tuned(self, keep: Path, begun: float) -> Tuned:
        """Write the whole model with the best weights, and say what was done."""
        if self._accelerator.is_main_process:
            assemble(self._base, self.watch.kept(), keep, self._request.resolution)
        self._accelerator.wait_for_everyone()
        trained, weights = self.counts()
        return Tuned(
            folder=keep,
            best=self.watch.best(),
            evaluations=tuple(self.watch.evaluations),
            steps=self.step,
            planned=self.plan.steps,
            trained=trained,
            weights=weights,
            phrases=self.phrases,
            resolution=self.side,
            masks=self.masks,
            seconds=round(time.monotonic() - begun, 2),
        )
