"""What a tuning of a Qwen-VL can be asked to do; see :mod:`tator_sdk.requests`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from tator_sdk.requests import JobRequest


class QwenTraining(JobRequest):
    """Tuning of a Qwen-VL that is asked for objects in words."""

    SECTIONS: ClassVar[Mapping[str, str]] = {
        "project": "What is learned from",
        "base": "Model and adapter",
        "label": "What it is called and how it is asked",
        "points": "Samples",
        "epochs": "Optimisation",
        "patience": "Measuring, and when it is taken",
    }

    project: int | None = Field(None, ge=1, description="Label Studio project whose annotations are learned.")
    dataset: str | None = Field(
        None, description="Folder, zip or name (`tator datasets list`) of a data set, instead of a project."
    )
    images: Path | None = Field(None, description="Folder of a COCO file's pictures. Default: found.")

    base: str | None = Field(
        None, description="Model that is tuned: a hub id, a folder, or a whole model's run. Default: QWEN_MODEL_NAME."
    )
    method: Literal["lora", "qlora", "whole"] = Field(
        "lora", description="lora: an adapter. qlora: over a base in 4 bits (NF4). whole: all weights; much memory."
    )
    rank: int = Field(8, ge=1, le=1024, description="Rank of the adapter.")
    alpha: int = Field(16, ge=1, le=4096, description="Its scale, which is divided by the rank.")
    dropout: float = Field(0.05, ge=0, lt=1, description="Dropout of the adapter's input.")
    targets: tuple[str, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj"), description="Projections that get an adapter; may be repeated."
    )

    label: str = Field("", max_length=200, description="Name of the result for people.")
    description: str = Field("", max_length=2000, description="A sentence about it for lists.")
    system_prompt: str | None = Field(None, max_length=4000, description="System message. Default: the prompts' own.")
    image_type: str = Field("image", max_length=200, description="What the pictures are, such as aerial photograph.")
    context: str = Field("", max_length=4000, description="A sentence about the data that goes with every prompt.")
    template: str | None = Field(
        None, max_length=4000, description="User message with {image_type}, {items}, {extra_context}. Default: ours."
    )
    noise: float = Field(0.05, ge=0, le=0.3, description="Share of the system message's characters that are dropped.")

    points: float = Field(0.5, ge=0, le=1, description="Share of the samples that ask for points, not boxes.")
    negatives: float = Field(
        0.2, ge=0, le=1, description="Share of the samples of one class or some that ask for what is not there: []."
    )
    max_image_dim: int = Field(1024, ge=56, le=8192, description="Longest side of a picture, pixels.")
    max_detections: int = Field(200, ge=1, le=1000, description="Most objects in one answer, balanced by class.")
    val_share: float = Field(0.2, gt=0, lt=0.9, description="Share of the pictures held out, by content hash.")
    seed: int = Field(1337, ge=0, description="Seed of whatever is drawn at random.")

    epochs: int = Field(10, ge=1, le=10_000, description="Most rounds over the pictures.")
    learning_rate: float = Field(2e-4, gt=0, le=1, description="Of AdamW, after the warm-up.")
    warm_up: float = Field(0.03, ge=0, lt=1, description="Share of the steps in which the rate rises.")
    weight_decay: float = Field(0.0, ge=0, le=1, description="Of AdamW.")
    batch: int = Field(1, ge=1, le=1024, description="Samples that are computed together.")
    accumulate: int = Field(8, ge=1, le=1024, description="Batches for one step of the optimiser.")
    clip: float = Field(1.0, gt=0, description="Longest gradient.")
    patience: int = Field(3, ge=0, description="Evaluations without progress after which it stops; 0: never.")
    evaluate_every: int = Field(0, ge=0, description="Steps between evaluations; 0: once a round.")
    evaluate_pictures: int = Field(50, ge=1, description="Held-out pictures that are asked about at each of them.")
    compare_pictures: int = Field(
        200, ge=1, description="Held-out pictures on which the result is compared with the active model."
    )
    max_new_tokens: int = Field(768, ge=16, le=8192, description="Longest answer in an evaluation.")
    checkpoint_every: int = Field(50, ge=1, description="Steps between checkpoints.")
    gradient_checkpointing: Literal["auto", "on", "off"] = Field(
        "auto", description="Less memory for a third more time; auto: for models above 100 million weights."
    )

    activation: Literal["auto", "never", "always"] = Field(
        "auto", description="auto: if it is better than the active model on the same held-out pictures."
    )
    device: str | None = Field(None, description="Device to train on. Default: TATOR_DEVICE.")

    @model_validator(mode="after")
    def _one_source(self) -> QwenTraining:
        if (self.project is None) == (self.dataset is None):
            raise ValueError("give either --project N (Label Studio) or --dataset FOLDER")
        return self
