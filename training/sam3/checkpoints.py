"""What a training leaves behind at its steps, so that one that was killed goes on as if nothing had been."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from training.checkpoints import COMPLETE, checkpoints_in, whole_checkpoints
from training.sam3.weights import read_learned, save_learned

LEARNED, OPTIMIZER, STATE = "learned.safetensors", "optimizer.safetensors", "state.json"
KEPT = 2


@dataclass(frozen=True)
class State:
    """What is not a tensor.

    Attributes:
        step: of the optimiser, done.
        evaluations: so far.
        replay: of :class:`training.sam3.replay.Replay`.
        resolution: of the pictures; 0 for the base's own.
    """

    step: int
    evaluations: tuple[Mapping[str, Any], ...]
    replay: tuple[tuple[float, ...], ...]
    resolution: int = 0


def write(
    folder: Path, learned: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer, state: State, scale: float
) -> Path:
    """Write a checkpoint of a job, and remove those before the last ones.

    Args:
        folder: of the job.
        learned: weights that learn, by name.
        optimizer: whose state is kept with them.
        state: the rest.
        scale: of an adapter.
    """
    path = checkpoints_in(folder) / f"checkpoint-{state.step}"
    partial = path.with_name(f".{path.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_learned(partial / LEARNED, learned, scale)
    save_file(_optimizer_tensors(learned, optimizer), partial / OPTIMIZER)
    (partial / STATE).write_text(json.dumps(vars(state)))
    (partial / COMPLETE).touch()
    shutil.rmtree(path, ignore_errors=True)
    partial.rename(path)
    last = whole_checkpoints(folder)[-KEPT:]
    for other in checkpoints_in(folder).iterdir():
        if other not in last:
            shutil.rmtree(other, ignore_errors=True)
    return path


def read(path: Path, learned: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> State:
    """Take up a checkpoint's weights and the optimiser's state.

    Args:
        path: of the checkpoint.
        learned: weights that learn, by name; overwritten.
        optimizer: of those; its state is overwritten, its rates are not.
    """
    kept, _ = read_learned(path / LEARNED)
    moments: dict[str, dict[str, Tensor]] = {}
    for key, value in load_file(path / OPTIMIZER).items():
        kind, _, name = key.partition("/")
        moments.setdefault(name, {})[kind] = value
    with torch.no_grad():
        for name, one in learned.items():
            one.copy_(kept[name])
            if name in moments:
                optimizer.state[one] = {kind: value.to(one.device) for kind, value in moments[name].items()}
    return read_state(path)


def read_state(path: Path) -> State:
    """Only what is not a tensor."""
    about = json.loads((path / STATE).read_text())
    replay = tuple(tuple(pair) for pair in about["replay"])
    return State(about["step"], tuple(about["evaluations"]), replay, about["resolution"])


def _optimizer_tensors(learned: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{key}/{name}": torch.as_tensor(value).detach().cpu().contiguous()
        for name, one in learned.items()
        for key, value in optimizer.state.get(one, {}).items()
    }
