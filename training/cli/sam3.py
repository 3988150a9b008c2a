"""``train sam3``: tuning of the model that finds what a phrase names."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape

from tator_ml.cli.sam3 import SAM3_KIND
from tator_ml.cli.serving import Home, read_settings
from tator_sdk.cli.options import EITHER_SPELLING, with_request
from tator_sdk.errors import TatorError
from tator_sdk.sam3_request import Sam3Training
from tator_sdk.settings import Settings
from training.cli.tuning import Tuning, Where, print_counts
from training.cli.working import Detach, DryRun, Here, Verbose

if TYPE_CHECKING:
    from training.job import Job
    from training.samples import Samples

ALSO = {"project": ["-p"], "device": ["device-override"], "base": ["model-id"]}


def register(train: typer.Typer) -> None:
    """Add the verb to those that train."""
    train.command("sam3", context_settings=EITHER_SPELLING)(sam3)


@with_request(Sam3Training, also=ALSO)
def sam3(
    request: Sam3Training,
    here: Here = False,
    detach: Detach = False,
    dry_run: DryRun = False,
    verbose: Verbose = False,
    home: Home = None,
) -> None:
    """Tune a SAM 3 on your own labels, so that phrases and classes find what you label.

    By default boxes are learned, and whatever makes masks stays as it is; where the data set's shapes are outlines
    (polygons, brushes), masks are learned too. The result becomes the project's model only if it is better than the
    active one on the same held-out pictures. A worker does it where one runs (`tator up`), else this process. Stopped
    or killed, it goes on from its last checkpoint: a worker by itself, and here when the same command is given again.

    Example: tator train sam3 --project 3 --dry-run

    Example: tator train sam3 --project 3 --phrases "car=small red car" --sampler effective

    Example: tator train sam3 --dataset data/cars_seg --method lora --freeze-vision --detach

    Example: accelerate launch --num_processes 4 -m tator_sdk train sam3 --project 3 --here
    """
    if _helps():
        here, dry_run = True, False
    settings, console = read_settings(home=home), Console(highlight=False, quiet=_helps())
    if "RANK" in os.environ:  # under accelerate launch, whose processes no worker could join
        here = True
    TUNING.run(request, Where(here, detach, dry_run, verbose), settings, console)


def _helps() -> bool:
    """Whether this process only helps another one, under ``accelerate launch``."""
    return int(os.environ.get("RANK", "0")) > 0


def _tune(request: Sam3Training, settings: Settings, job: Job) -> dict[str, Any]:
    from training.sam3.job import tune

    return tune(request, settings, job)


def _preview(request: Sam3Training, settings: Settings, console: Console) -> None:
    from training.cli.foreground import foreground
    from training.sam3.preview import columns
    from training.source import open_samples

    with (
        foreground(settings, console, False, "sam3-preview", "Stopped.") as job,
        open_samples(request, settings, job, keep=False) as samples,
    ):
        print_counts(samples, console, columns(request, samples))
        _print_how(request, settings, samples, console)


def _print_how(request: Sam3Training, settings: Settings, samples: Samples, console: Console) -> None:
    """Show what will learn, and the memory that it takes where the base is there."""
    from training.sam3.preview import memory
    from training.sam3.train import learns_masks

    masks = learns_masks(request, samples)
    console.print("Boxes and masks are learned." if masks else "Boxes are learned; what makes masks stays as it is.")
    try:
        said, fits = memory(request, settings, samples)
    except TatorError as error:
        console.print(f"How much memory it takes cannot be told: {escape(str(error))}", soft_wrap=True)
        return
    console.print(f"{said}{'' if fits else ': [yellow]too much[/], see --help for what needs less'}.", soft_wrap=True)


TUNING = Tuning("sam3", SAM3_KIND, _tune, _preview)
