"""One step after the other: questions, loss, gradient, weights; the same in one process and in several."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from tator_sdk.errors import TatorError
from tator_sdk.sam3_request import Sam3Training
from training.sam3.batches import Batch
from training.sam3.draws import Draws
from training.sam3.forward import Asked, How, Layers, forward
from training.sam3.losses import Weights, loss
from training.sam3.matcher import Costs
from training.sam3.replay import Replay
from training.sam3.schedule import factor


class NoNumber(TatorError):
    """The loss is no number; the message says what to change."""


class Answering(nn.Module):
    """A model whose forward pass is the one of training: what several processes wrap."""

    def __init__(self, model: Any, how: How) -> None:
        super().__init__()
        self.model = model
        self._how = how

    def forward(self, asked: Asked) -> tuple[Layers, Layers | None]:
        """See :func:`training.sam3.forward.forward`."""
        return forward(self.model, asked, self._how)


@dataclass(frozen=True)
class Told:
    """What a step says of itself: loss, length of the gradient before it is cut, rate, and parts of the loss."""

    loss: float
    gradient: float
    rate: float
    parts: Mapping[str, float]


class Loop:
    """Trains; knows nothing of jobs, files or evaluation."""

    def __init__(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, draws: Draws, replay: Replay, request: Sam3Training,
        accelerator: Accelerator, steps: int, half: bool,
    ) -> None:  # fmt: skip
        """Prepare.

        Args:
            module: an :class:`Answering`, as ``accelerator`` has wrapped it.
            optimizer: with the whole rates in its groups.
            draws: batches by number.
            replay: which batches come again.
            request: weights, costs, schedule.
            accelerator: of these processes.
            steps: in all.
            half: compute in bf16.
        """
        self._module = module
        self._optimizer = optimizer
        self._rates = [float(group["lr"]) for group in optimizer.param_groups]
        self._learned = [one for group in optimizer.param_groups for one in group["params"]]
        self._request = request
        self._accelerator = accelerator
        self._steps = steps
        self._half = half
        self._weights, self._costs = weights_of(request), costs_of(request)
        self.replay = replay
        self._feed = Feed(draws, accelerator)

    def step(self, step: int, tick: Callable[[], None]) -> Told:
        """Do a step of the optimiser.

        Args:
            step: its number, from 0.
            tick: called after each batch; may stop the work.

        Raises:
            NoNumber: the loss is infinite or none.
        """
        each, values, parts = self._request.accumulate, [], {}
        for turn in range(each):
            number = step * each + turn
            chosen = self.replay.batch(number, step)
            following = None if self.replay.repeats(number + 1, (number + 1) // each) else number + 1
            batch = self._feed.get(chosen, following if number + 1 < self._steps * each else None)
            with self._apart(turn == each - 1):
                value, parts = self._taught(batch, number)
            values.append((chosen, value))
            tick()
        gradient: Any = self._accelerator.clip_grad_norm_(self._learned, self._request.clip)
        told = self._told(values, gradient, parts, step)
        scale = factor(step + 1, self._steps, self._request)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * scale
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return told

    def _taught(self, batch: Batch, number: int) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        """The loss of a batch, with its gradient added to the weights'."""
        # dropout depends on the number alone, so that a training that was killed goes on as it would have
        torch.manual_seed((self._request.seed * 1_000_003 + number) * 4096 + self._accelerator.process_index)
        with torch.autocast(self._accelerator.device.type, torch.bfloat16, enabled=self._half):
            answers, many = self._module(batch.asked)
        count: Any = torch.tensor(float(len(batch.targets.boxes)), device=self._accelerator.device)
        count = self._accelerator.reduce(count, "mean").clamp(min=1)
        value, parts = loss(answers, batch.targets, self._weights, self._costs, many, count)
        self._accelerator.backward(value / self._request.accumulate)
        return value.detach(), parts

    def _told(
        self, values: list[tuple[int, torch.Tensor]], gradient: Any, parts: Mapping[str, torch.Tensor], step: int
    ) -> Told:
        shared: Any = self._accelerator.reduce(torch.stack([value for _, value in values]), "mean")
        losses = shared.tolist()
        mean, length = sum(losses) / len(losses), float(gradient)
        if not (math.isfinite(mean) and math.isfinite(length)):
            raise NoNumber(
                f"The loss at step {step + 1} is no number any more; use a lower --learning-rate, or --precision fp32."
            )
        for (number, _), one in zip(values, losses, strict=True):
            self.replay.saw(number, one)
        rate = max(self._rates) * factor(step + 1, self._steps, self._request)
        return Told(mean, length, rate, {name: float(one) for name, one in parts.items()})

    def _apart(self, last: bool) -> AbstractContextManager[Any]:
        """Processes exchange gradients at the last batch of a step only."""
        return nullcontext() if last else self._accelerator.no_sync(self._module)


class Feed:
    """Batches on the device; on an accelerator the next one is made while this one is computed."""

    def __init__(self, draws: Draws, accelerator: Accelerator) -> None:
        self._draws = draws
        self._accelerator = accelerator
        self._pool = ThreadPoolExecutor(1) if accelerator.device.type != "cpu" else None
        self._ahead: dict[int, Future[Batch]] = {}

    def get(self, number: int, following: int | None) -> Batch:
        """The batch of a number, for this process.

        Args:
            number: of the batch; each process has its share of it.
            following: the number that is asked for next, if that is known.
        """
        future = self._ahead.pop(number, None)
        batch = future.result() if future is not None else self._made(number)
        if self._pool is not None and following is not None:
            self._ahead[following] = self._pool.submit(self._made, following)
        return batch.to(self._accelerator.device)

    def _made(self, number: int) -> Batch:
        return self._draws.batch(number * self._accelerator.num_processes + self._accelerator.process_index)


def weights_of(request: Sam3Training) -> Weights:
    """Of the parts of the loss."""
    return Weights(
        request.box_weight, request.giou_weight, request.class_weight, request.presence_weight, request.mask_weight,
        request.dice_weight, request.many_weight,
    )  # fmt: skip


def costs_of(request: Sam3Training) -> Costs:
    """Of matching."""
    return Costs(request.match_class, request.match_box, request.match_giou)
