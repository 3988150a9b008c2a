"""What a job can be asked to do with data: export, entry in the registry, and taking back.

Like ``requests.py``, which has the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from tator_sdk.requests import Export, JobRequest


class DataExport(Export):
    """Writing of a project's annotations, or of one version's predictions, as a data set, by a worker."""

    SECTIONS: ClassVar[Mapping[str, str]] = {
        "project": "Project",
        "annotations": "What is written",
        "val_share": "How it is written",
    }

    form: Literal["yolo", "yolo-seg", "yolo-obb", "coco", "crops"] = Field(
        "yolo", description="yolo: boxes; yolo-seg: polygons; yolo-obb: oriented boxes; coco; crops: a file an object."
    )


class Registration(JobRequest):
    """Entry of a data set in the registry; one that is there is brought up to date."""

    path: Path = Field(description="Folder, zip, COCO .json or data.yaml of the data set.")
    type: str | None = Field(None, description="Where it cannot be told: yolo-obb, coco, crops, qwen, sam3, …")
    project: int | None = Field(None, ge=1, description="Label Studio project that it belongs to.")
    origin: str = Field("", max_length=300, description="What it was made from, for people.")


class Undo(JobRequest):
    """Taking back of what an import, or an ended job, did to a project."""

    of: str = Field(
        pattern=r"^(import|tweak|relabel|prelabel|polygons)-[A-Za-z0-9-]{1,80}$",
        description="The import's id, the job's, or the name of the build of polygons.",
    )
    project: int = Field(ge=1, description="Label Studio project that it was done to.")
    dry_run: bool = Field(False, description="Only report what would be taken back.")
