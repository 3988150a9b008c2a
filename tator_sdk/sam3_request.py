"""What a tuning of SAM 3 can be asked to do; see :mod:`tator_sdk.requests`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from tator_sdk.requests import JobRequest

Sampler = Literal["uniform", "inverse_sqrt", "clipped_inverse", "effective", "focal"]


class Sam3Training(JobRequest):
    """Tuning of a SAM 3 that finds objects by phrases.

    Defaults are those of the published recipe (https://arxiv.org/abs/2511.16719) and of the original application.
    """

    SECTIONS: ClassVar[Mapping[str, str]] = {
        "project": "What is learned from",
        "base": "Model and adapter",
        "label": "What it is called",
        "phrases": "Phrases and samples",
        "epochs": "Optimisation",
        "box_weight": "Losses and matching",
        "replay": "Repeats of hard batches",
        "patience": "Measuring, and when it is taken",
    }

    project: int | None = Field(None, ge=1, description="Label Studio project whose annotations are learned.")
    dataset: str | None = Field(
        None, description="Folder, zip or name (`tator datasets list`) of a data set, instead of a project."
    )
    images: Path | None = Field(None, description="Folder of a COCO file's pictures. Default: found.")
    limit: int = Field(0, ge=0, description="Most pictures to learn from, drawn by the sampler; 0: all.")

    base: str | None = Field(
        None, description="Model that is tuned: a hub id, a folder, or a run's id. Default: SAM3_MODEL_ID."
    )
    method: Literal["whole", "lora"] = Field(
        "whole", description="whole: all weights that are not frozen. lora: an adapter, merged in the end; less memory."
    )
    rank: int = Field(8, ge=1, le=1024, description="Rank of the adapter.")
    alpha: int = Field(16, ge=1, le=4096, description="Its scale, which is divided by the rank.")
    dropout: float = Field(0.05, ge=0, lt=1, description="Dropout of the adapter's input.")
    freeze_vision: bool = Field(
        False, description="Leave the vision tower as it is, so that clicks answer exactly as before; less memory."
    )
    freeze_text: bool = Field(False, description="Leave the text encoder as it is.")

    label: str = Field("", max_length=200, description="Name of the result for people.")
    description: str = Field("", max_length=2000, description="A sentence about it for lists.")

    phrases: tuple[str, ...] = Field(
        (), description="Phrases of a class besides its own name, as CLASS=PHRASE; may be repeated."
    )
    negatives: float = Field(
        1.0,
        ge=0,
        le=20,
        description="Phrases of absent classes that are asked of a picture, for each of a present one.",
    )
    most_questions: int = Field(
        16, ge=1, le=200, description="Most phrases that are asked of a picture at once; those that it shows first."
    )
    exemplars: float = Field(
        0.0, ge=0, le=1, description="Share of the questions that show some of the objects instead of naming a phrase."
    )
    masks: Literal["auto", "never", "always"] = Field(
        "auto", description="Learn masks too; auto: where the data set's shapes are outlines (type seg)."
    )
    sampler: Sampler = Field("uniform", description="How often pictures with rare classes come.")
    sampler_clip: float = Field(
        10.0, ge=1, description="clipped_inverse: most weight of a picture over that of the commonest class."
    )
    sampler_beta: float = Field(0.999, ge=0, lt=1, description="effective: beta of the effective number of samples.")
    sampler_gamma: float = Field(2.0, ge=0, description="focal: exponent.")
    val_share: float = Field(0.2, gt=0, lt=0.9, description="Share of the pictures held out, by content hash.")
    seed: int = Field(1337, ge=0, description="Seed of whatever is drawn at random.")

    epochs: float = Field(20.0, gt=0, le=10_000, description="Rounds over the pictures.")
    most_steps: int = Field(0, ge=0, description="Most steps of the optimiser, whatever the rounds; 0: no limit.")
    resolution: int = Field(
        0, ge=0, le=4096, description="Side of the square pictures are stretched to; 0: the base's (1008)."
    )
    learning_rate: float = Field(8e-5, gt=0, le=1, description="Of AdamW behind the vision tower.")
    vision_rate: float = Field(2.5e-5, ge=0, le=1, description="… of the vision tower's last block.")
    text_rate: float = Field(5e-6, ge=0, le=1, description="… of the text encoder.")
    layer_decay: float = Field(
        0.9, gt=0, le=1, description="Factor of the rate from one block of the tower to the one before."
    )
    schedule: Literal["inverse_sqrt", "cosine", "constant"] = Field("inverse_sqrt", description="Of the rates.")
    warm_up: int = Field(20, ge=0, description="Steps in which the rates rise.")
    time_scale: int = Field(20, ge=1, description="inverse_sqrt: steps after which the rates fall.")
    cool_down: int = Field(20, ge=0, description="Steps at the end in which the rates fall to nothing.")
    weight_decay: float = Field(0.1, ge=0, le=1, description="Of AdamW; not of biases and norms.")
    batch: int = Field(1, ge=1, le=1024, description="Pictures that are computed together.")
    accumulate: int = Field(4, ge=1, le=1024, description="Batches for one step of the optimiser.")
    clip: float = Field(0.1, gt=0, description="Longest gradient.")
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="auto: bf16 on GPUs that have it, else fp32."
    )
    gradient_checkpointing: Literal["auto", "on", "off"] = Field(
        "auto", description="Less memory for a third more time; auto: where masks are learned or memory is short."
    )

    box_weight: float = Field(5.0, ge=0, description="Weight of the L1 distance of boxes in the loss.")
    giou_weight: float = Field(2.0, ge=0, description="… of their generalised IoU.")
    class_weight: float = Field(20.0, ge=0, description="… of the focal loss of the objects' scores.")
    presence_weight: float = Field(20.0, ge=0, description="… of whether the phrase is on the picture at all.")
    mask_weight: float = Field(200.0, ge=0, description="… of the focal loss of masks.")
    dice_weight: float = Field(10.0, ge=0, description="… of their Dice loss.")
    many_weight: float = Field(
        2.0,
        ge=0,
        description="… of a second set of queries in training, of which several may find one object; 0: none.",
    )
    match_class: float = Field(2.0, ge=0, description="Weight of the score when predictions are matched with objects.")
    match_box: float = Field(5.0, ge=0, description="… of the L1 distance.")
    match_giou: float = Field(2.0, ge=0, description="… of the generalised IoU.")

    replay: float = Field(
        0.0, ge=0, le=0.9, description="Share of steps that repeat batches of the highest loss; 0: none."
    )
    replay_burn_in: int = Field(200, ge=0, description="Steps before the first of them.")
    replay_kept: int = Field(32, ge=1, le=10_000, description="Batches that are remembered for it.")

    patience: int = Field(5, ge=0, description="Evaluations without progress after which it stops; 0: never.")
    evaluate_every: int = Field(0, ge=0, description="Steps between evaluations; 0: once a round.")
    evaluate_pictures: int = Field(200, ge=1, description="Held-out pictures that are asked about at each of them.")
    compare_pictures: int = Field(
        500, ge=1, description="Held-out pictures on which the result is compared with the active model."
    )
    checkpoint_every: int = Field(50, ge=1, description="Steps between checkpoints.")

    activation: Literal["auto", "never", "always"] = Field(
        "auto", description="auto: if it is better than the active model on the same held-out pictures."
    )
    device: str | None = Field(None, description="Device to train on. Default: SAM3_DEVICE.")

    @model_validator(mode="after")
    def _one_source(self) -> Sam3Training:
        if (self.project is None) == (self.dataset is None):
            raise ValueError("give either --project N (Label Studio) or --dataset FOLDER")
        for one in self.phrases:
            name, _, phrase = one.partition("=")
            if not (name.strip() and phrase.strip()):
                raise ValueError(f"{one!r} is no CLASS=PHRASE, such as 'car=small red car'")
        return self
