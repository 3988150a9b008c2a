"""What a job can be asked to do: fields with defaults, help and bounds.

Command-line options, forms and validation are all made from these models, so a setting is described once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Solver = Literal["lbfgs", "saga", "sag", "newton-cg", "newton-cholesky", "liblinear"]


class JobRequest(BaseModel):
    """What every request has in common: it travels as JSON and does not change on the way.

    Attributes:
        SECTIONS: headings of its help and its form, each by the first field that stands below it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    SECTIONS: ClassVar[Mapping[str, str]] = {}


class HeadTraining(JobRequest):
    """Training of a class head: logistic regression on the embeddings of labelled boxes."""

    SECTIONS: ClassVar[Mapping[str, str]] = {
        "project": "What is learned from",
        "encoder": "Embeddings",
        "solver": "Regression",
        "hard_example_mining": "Hard examples",
        "precision": "When it answers, when it is taken",
    }

    project: int | None = Field(None, ge=1, description="Label Studio project whose annotations are learned.")
    images_path: Path | None = Field(None, description="Folder of pictures, instead of a project (YOLO).")
    labels_path: Path | None = Field(None, description="Folder of YOLO label files. Default: beside the pictures.")
    labelmap_path: Path | None = Field(
        None, description="Class names: labelmap.txt, classes.txt, labels.txt or data.yaml. Default: looked for."
    )
    sync: bool = Field(True, description="Read the whole project first, instead of trusting what webhooks told.")

    encoder: str | None = Field(None, description="Image encoder. Default: TATOR_ENCODER.")
    crop_margin: float = Field(0.08, ge=0, le=1, description="Free space around a box, as share of its longer side.")
    crop_square: bool = Field(True, description="Square-padded crop; off: exactly the box.")
    batch: int = Field(64, ge=1, le=4096, description="Crops that are embedded together.")
    cache: bool = Field(True, description="Use embeddings made before, and keep new ones.")

    solver: Solver = Field("lbfgs", description="Optimiser of the regression.")
    # Both defaults are measured (`make bench NAME=head`, photographs): on embeddings of norm 1 and few examples,
    # C = 1 without class weights reaches a macro-F1 of 0.08, C = 10 with balanced ones 0.40.
    inverse_regularization: float = Field(10.0, gt=0, description="C of the logistic regression.")
    max_iter: int = Field(1000, ge=1, le=100_000, description="Most iterations of the optimiser.")
    tolerance: float = Field(1e-4, gt=0, description="Where the optimiser stops.")
    class_weight: Literal["none", "balanced", "effective"] = Field(
        "balanced", description="Weight of rare classes: none, inverse frequency, or effective number of samples."
    )
    test_share: float = Field(0.2, gt=0, lt=0.9, description="Share of the images that is held out, by content hash.")
    seed: int = Field(42, ge=0, description="Seed of whatever is drawn at random.")
    min_per_class: int = Field(2, ge=1, description="Fewest examples of a class; one with fewer is left out.")
    background: int = Field(
        0, ge=0, le=16, description="Crops of empty places per image, from which 'none of these' is learned."
    )

    hard_example_mining: bool = Field(False, description="Refit with more weight on what was hard.")
    mining_misclassified: float = Field(3.0, ge=1, description="Weight of examples that the first fit gets wrong.")
    mining_uncertain: float = Field(2.0, ge=1, description="Weight of examples that it is unsure of.")
    mining_confidence: float = Field(0.65, ge=0, le=1, description="Unsure: best probability below this …")
    mining_margin: float = Field(0.15, ge=0, le=1, description="… or lead of the best over the second below this.")

    precision: float = Field(0.95, gt=0, lt=1, description="Share of the head's answers that is to be right.")
    unknown_share: float = Field(
        0.2, ge=0, lt=1, description="Share of boxes to expect that belong to none of the classes."
    )
    activation: Literal["auto", "never", "always"] = Field(
        "auto", description="auto: if it is not worse than the active head on the same held-out images."
    )
    device: str | None = Field(None, description="Device of the encoder where no engine runs. Default: TATOR_DEVICE.")

    @model_validator(mode="after")
    def _one_source(self) -> HeadTraining:
        if (self.project is None) == (self.images_path is None):
            raise ValueError("give either --project N (Label Studio) or --images-path FOLDER (YOLO)")
        return self


class Relabel(JobRequest):
    """Checking of the standing boxes of a whole project with its active head."""

    SECTIONS: ClassVar[Mapping[str, str]] = {
        "project": "What is checked",
        "least_probability": "When it is doubtful",
    }

    project: int = Field(ge=1, description="Label Studio project whose boxes are checked.")
    limit: int = Field(0, ge=0, description="Most tasks to offer corrections for, most doubtful first; 0: all.")
    # Measured with a twentieth of the labels flipped: 0.88 to 0.97 of them found, 0.85 to 0.95 of the queue right.
    # The head's own thresholds would not do: mistakes in the labels that it was tested on make them too strict.
    least_probability: float = Field(0.7, ge=0, le=1, description="Offer only where the head is at least this sure …")
    most_given: float = Field(0.1, ge=0, le=1, description="… and gives the person's label at most this probability.")
    dry_run: bool = Field(False, description="Only report what would be offered.")


class QualityReading(JobRequest):
    """Reading of a whole project for the figures of what people did with the suggestions."""

    project: int = Field(ge=1, description="Label Studio project whose annotations and predictions are read.")


class WarmUp(JobRequest):
    """Encoding of a whole project ahead, or of one shard of it."""

    SECTIONS: ClassVar[Mapping[str, str]] = {
        "project": "What is encoded",
        "in_flight": "How fast",
    }

    project: int = Field(ge=1, description="Label Studio project whose pictures are encoded.")
    segmenter: str | None = Field(None, description="Segmenter to encode for. Default: the project's.")
    in_flight: int = Field(4, ge=1, le=64, description="Pictures that are fetched and encoded at once by one worker.")
    shards: int = Field(1, ge=1, le=256, description="Parts that the project is cut into, one for each worker.")
    shard: int = Field(0, ge=0, description="Which of them this is, from 0.")

    @model_validator(mode="after")
    def _one_of_them(self) -> WarmUp:
        if self.shard >= self.shards:
            raise ValueError(f"there is no shard {self.shard} of {self.shards}; they are counted from 0")
        return self


class DataImport(JobRequest):
    """Import of a data set in files into a project."""

    SECTIONS: ClassVar[Mapping[str, str]] = {
        "path": "Data set and project",
        "target": "What shapes become",
        "local_files": "Where pictures are",
        "names": "Files beside it",
    }

    path: Path = Field(description="Folder, zip, COCO .json or data.yaml of the data set.")
    kind: Literal["yolo", "detect", "segment", "obb", "coco"] = Field(description="What the data set is.")
    project: int = Field(ge=1, description="Label Studio project that takes it.")
    target: Literal["annotations", "predictions"] = Field(
        "annotations", description="What shapes become: annotations, as if people had drawn them, or predictions."
    )
    model_version: str = Field("import", min_length=1, description="With predictions: what they are shown as.")
    local_files: Path | None = Field(
        None,
        description="Pictures are not uploaded but served by Label Studio from this folder, its "
        "LOCAL_FILES_DOCUMENT_ROOT.",
    )
    url_prefix: str | None = Field(None, description="Pictures are at this web address with their names behind it.")
    match: bool = Field(
        False, description="Make no tasks: shapes go to the tasks that have a picture of the same file name."
    )
    empty_as_annotation: bool = Field(
        False, description="A picture without shapes is labelled as showing nothing; otherwise its task is unlabelled."
    )
    names: Path | None = Field(None, description="File of YOLO classes' names. Default: found.")
    images: Path | None = Field(None, description="Folder of a COCO file's pictures. Default: found.")

    @model_validator(mode="after")
    def _one_place(self) -> DataImport:
        given = [
            name
            for name, value in (("--local-files", self.local_files), ("--url-prefix", self.url_prefix))
            if value is not None
        ]
        if self.match:
            given.append("--match")
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other; give one of them, or none to upload")
        return self


class SegmentationBuild(JobRequest):
    """Boxes of a project or a data set → a data set of polygons, or one shard of that work."""

    SECTIONS: ClassVar[Mapping[str, str]] = {
        "project": "Source and output",
        "segmenter": "Masks",
        "least_iou": "Polygons",
        "val_share": "Data set",
        "shards": "Workers",
    }

    project: int | None = Field(None, ge=1, description="Label Studio project whose boxes are segmented.")
    path: Path | None = Field(None, description="Folder of a YOLO data set, instead of a project.")
    output: Path | None = Field(
        None, description="Folder to make. Default: the source's name with _seg (_obb for oriented boxes)."
    )
    segmenter: str | None = Field(None, description="Segmenter. Default: the project's, else TATOR_SEGMENTER.")
    mask_threshold: float = Field(0.5, gt=0, lt=1, description="Probability from which a pixel belongs to the mask.")
    score_threshold: float = Field(0.0, ge=0, le=1, description="Predicted IoU below which a mask is not used.")
    min_size: int = Field(0, ge=0, description="Pixels below which a mask is not used.")
    max_results: int = Field(1, ge=1, le=3, description="Masks for one box, best first.")
    least_iou: float = Field(0.98, ge=0.5, lt=1, description="IoU with the mask that a polygon keeps.")
    simplify_epsilon: float | None = Field(
        None, ge=0, description="Douglas-Peucker tolerance in pixels, instead of an IoU to keep."
    )
    oriented: bool = Field(False, description="Oriented boxes (smallest rectangle around the mask), not polygons.")
    val_share: float = Field(0.2, ge=0, lt=1, description="Share of the pictures for val, where the source is unsplit.")
    seed: int = Field(42, ge=0, description="Seed of that split, which goes by the pictures' content.")
    images: Literal["link", "copy"] = Field("link", description="Hard links to the pictures where possible, or copies.")
    push: bool = Field(False, description="Push what was made to the project as predictions, each exactly once.")
    shards: int = Field(1, ge=1, le=256, description="Parts that the work is cut into, one for each worker.")
    shard: int = Field(0, ge=0, description="Which of them this is, from 0.")

    @model_validator(mode="after")
    def _usable(self) -> SegmentationBuild:
        if (self.project is None) == (self.path is None):
            raise ValueError("give either --project N (Label Studio) or --path FOLDER (YOLO)")
        if self.push and self.project is None:
            raise ValueError("--push needs a --project to push to")
        if self.shard >= self.shards:
            raise ValueError(f"there is no shard {self.shard} of {self.shards}; they are counted from 0")
        return self

    @property
    def build(self) -> str:
        """Names the work that all shards share; the same for the same request, so that it is taken up again."""
        about = self.model_dump_json(exclude={"shard", "shards"})
        return f"polygons-{hashlib.sha256(about.encode()).hexdigest()[:10]}"


class Export(JobRequest):
    """Writing of a project's annotations, or of one version's predictions, as a data set."""

    SECTIONS: ClassVar[Mapping[str, str]] = {
        "project": "Project and output",
        "annotations": "What",
        "val_share": "How",
    }

    project: int = Field(ge=1, description="Label Studio project to export.")
    output: Path = Field(description="Folder to write: a new or an empty one. With --zip, the zip.")
    annotations: Literal["newest", "all"] = Field(
        "newest", description="Of a task's submitted annotations: the one changed last, or the regions of all."
    )
    predictions: str | None = Field(
        None, description="Export the predictions of this model version, instead of annotations."
    )
    val_share: float = Field(
        0.2, ge=0, lt=1, description="Share of the pictures that goes to val, chosen by their content."
    )
    seed: int = Field(42, ge=0, description="Seed of that choice; with training's, what a head was tested on is val.")
    images: bool = Field(True, description="Write the pictures too; off: labels only.")
    empty: bool = Field(True, description="Write annotated pictures without any object too, with empty labels.")
    zip: bool = Field(False, description="Write one zip instead of a folder.")
    force: bool = Field(False, description="Move what is at --output aside, instead of refusing; never deletes.")
    dry_run: bool = Field(False, description="Only count what would be written; no picture is fetched.")


class Tweak(JobRequest):
    """Tightening of the standing boxes of a project, a view of its Data Manager, or single tasks."""

    SECTIONS: ClassVar[Mapping[str, str]] = {
        "project": "Which boxes",
        "in_place": "What is done",
        "segmenter": "How",
    }

    project: int = Field(ge=1, description="Label Studio project whose boxes are tightened.")
    classes: tuple[str, ...] = Field((), description="Only boxes of this class; may be given several times.")
    view: int | None = Field(
        None, ge=1, description="Only tasks of this view: the number after tab= in the Data Manager's address."
    )
    tasks: tuple[int, ...] = Field((), description="Only this task; may be given several times.")
    in_place: bool = Field(
        False, description="Change the annotations, with a stored undo, instead of offering predictions beside them."
    )
    classify: bool = Field(False, description="Ask the project's class head too, and offer its class where it is sure.")
    segmenter: str | None = Field(None, description="Segmenter to tighten with. Default: the project's.")
    in_flight: int = Field(2, ge=1, le=16, description="Pictures that are fetched and worked on at once.")
    pictures: int = Field(
        0, ge=0, le=200, description="Draw so many boxes, those that moved most, before and after, on one sheet."
    )
    dry_run: bool = Field(False, description="Only report what would change; nothing is pushed or written.")

    @model_validator(mode="after")
    def _one_selection(self) -> Tweak:
        if self.view is not None and self.tasks:
            raise ValueError("give either --view V or --task T, not both")
        return self


class Prelabel(JobRequest):
    """Words asked about every picture of a project, a view of its Data Manager, or single tasks."""

    SECTIONS: ClassVar[Mapping[str, str]] = {
        "project": "What is asked",
        "mode": "What comes of it",
        "view": "Which pictures",
        "classify": "How",
    }

    project: int = Field(ge=1, description="Label Studio project whose pictures are asked about.")
    by: Literal["qwen", "sam3"] = Field("qwen", description="Who is asked: a Qwen-VL in words, or SAM 3 by phrases.")
    prompt: str = Field("", max_length=10_000, description="What to find, as in a prompt field; empty: all classes.")
    model: str | None = Field(None, description="Id of a tuned model, or base. Default: the project's active one.")
    mode: Literal["bbox", "bbox_sam", "point"] | None = Field(
        None,
        description="The model's boxes; these through the segmenter (bbox_sam); or its points through it (point). "
        "Default: the prompt field's.",
    )
    max_results: int | None = Field(
        None, ge=1, le=200, description="Most objects on one picture. Default: the prompt field's, else 8 (sam3: 20)."
    )
    threshold: float | None = Field(
        None, ge=0, le=1, description="Least score of an object (sam3). Default: the prompt field's, else 0.5."
    )
    output: Literal["box", "polygon", "mask"] | None = Field(
        None, description="What objects become (sam3): box, polygon or mask. Default: the project's output."
    )
    image_type: str | None = Field(None, description="Kind of picture, for the prompt: 'aerial photograph'.")
    extra_context: str | None = Field(None, description="A sentence more about the pictures, for the prompt.")
    view: int | None = Field(
        None, ge=1, description="Only tasks of this view: the number after tab= in the Data Manager's address."
    )
    tasks: tuple[int, ...] = Field((), description="Only this task; may be given several times.")
    labelled: bool = Field(False, description="Tasks that have annotations too, instead of those without alone.")
    classify: bool | None = Field(
        None, description="Ask the project's class head too. Default: as the project's assists say."
    )
    segmenter: str | None = Field(None, description="Segmenter of bbox_sam and point. Default: the project's.")
    seconds: int = Field(600, ge=5, le=3600, description="Most time for one picture; what was found by then counts.")
    in_flight: int = Field(2, ge=1, le=16, description="Pictures that are fetched and worked on at once.")
    dry_run: bool = Field(False, description="Only report what would be offered; nothing is pushed.")

    @model_validator(mode="after")
    def _one_selection(self) -> Prelabel:
        if self.view is not None and self.tasks:
            raise ValueError("give either --view V or --task T, not both")
        foreign = _OF_SAM3 if self.by == "qwen" else _OF_QWEN
        if given := [name for name in foreign if getattr(self, name) is not None]:
            raise ValueError(f"{self.by} takes no {given[0].replace('_', ' ')}; leave it out")
        if self.by == "qwen" and (self.max_results or 0) > 50:
            raise ValueError("qwen names 50 objects at most; give --max-results up to 50")
        return self


_OF_QWEN = ("mode", "image_type", "extra_context", "segmenter")
_OF_SAM3 = ("threshold", "output")
