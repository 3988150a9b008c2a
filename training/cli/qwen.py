"""``train qwen``: tuning of the model that is asked in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from tator_ml.cli.qwen import QWEN
from tator_ml.cli.serving import Home, read_settings
from tator_sdk.cli.options import EITHER_SPELLING, with_request
from tator_sdk.qwen_request import QwenTraining
from tator_sdk.settings import Settings
from training.cli.tuning import Tuning, Where, print_counts
from training.cli.working import Detach, DryRun, Here, Verbose

if TYPE_CHECKING:
    from training.job import Job

ALSO = {"project": ["-p"], "device": ["device-override"], "base": ["model-id"]}


def register(train: typer.Typer) -> None:
    """Add the verb to those that train."""
    train.command("qwen", context_settings=EITHER_SPELLING)(qwen)


@with_request(QwenTraining, also=ALSO)
def qwen(
    request: QwenTraining,
    here: Here = False,
    detach: Detach = False,
    dry_run: DryRun = False,
    verbose: Verbose = False,
    home: Home = None,
) -> None:
    """Tune a Qwen-VL on your own labels, so that asking in words finds what you label.

    By default a LoRA adapter is learned; --method qlora holds the base in 4 bits. The result becomes the project's
    model only if it is better than the active one on the same held-out pictures. A worker does it where one runs
    (`tator up`), else this process. Stopped or killed, it goes on from its last checkpoint: a worker by itself, and
    here when the same command is given again.

    Example: tator train qwen --project 3 --context "Seen from a drone."

    Example: tator train qwen --project 3 --method qlora --detach

    Example: tator train qwen --dataset data/cars --base models/Qwen3-VL-4B-Instruct --label cars

    Example: tator train qwen --dataset cars.zip --dry-run
    """
    settings, console = read_settings(home=home), Console(highlight=False)
    TUNING.run(request, Where(here, detach, dry_run, verbose), settings, console)


def _tune(request: QwenTraining, settings: Settings, job: Job) -> dict[str, Any]:
    from training.qwen.job import tune

    return tune(request, settings, job)


def _preview(request: QwenTraining, settings: Settings, console: Console) -> None:
    from training.cli.foreground import foreground
    from training.qwen.base import MOST_ASPECT
    from training.source import open_samples

    with (
        foreground(settings, console, False, "qwen-preview", "Stopped.") as job,
        open_samples(request, settings, job, keep=False, most_aspect=MOST_ASPECT) as samples,
    ):
        print_counts(samples, console)


TUNING = Tuning("qwen", QWEN, _tune, _preview)
