"""What a tuning of SAM 3 would do with its data, and the memory that it takes: before it begins."""

from __future__ import annotations

import torch

from tator_sdk.sam3_request import Sam3Training
from tator_sdk.settings import Settings
from training.sam3.job import base_of, device_of
from training.sam3.memory import estimate, free_bytes, in_gb
from training.sam3.phrases import phrases_of
from training.sam3.samplers import counted, frequencies, probabilities
from training.sam3.train import is_half, learns_masks
from training.sam3.weights import detector_config, read_config
from training.samples import Samples


def columns(request: Sam3Training, samples: Samples) -> dict[str, dict[str, str]]:
    """By class: how often it will come, and its phrases."""
    counts = counted(samples.train, samples.classes)
    shares = frequencies(counts, probabilities(counts, request))
    plain = counts.sum(0) / max(counts.sum(), 1)
    phrases = phrases_of(samples, request)
    return {
        "share": {name: f"{share:.1%}" for name, share in zip(samples.classes, plain, strict=True)},
        f"drawn ({request.sampler})": {name: f"{one:.1%}" for name, one in zip(samples.classes, shares, strict=True)},
        "phrases": {name: " | ".join(said) for name, said in phrases.items()},
    }


def memory(request: Sam3Training, settings: Settings, samples: Samples) -> tuple[str, bool]:
    """What it takes and what is free, in a sentence, and whether it fits.

    Raises:
        TatorError: the base is not there.
    """
    masks = learns_masks(request, samples)
    device = torch.device(device_of(request, settings))
    config = detector_config(read_config(base_of(request, settings).folder, request.resolution))
    found = estimate(config, request, masks, is_half(request, device))
    free = free_bytes(device)
    return f"It takes {found.sentence}; {device} has {in_gb(free)} free", found.total <= free
