"""Whether people have worked on what an import made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

FIELDS = (
    "id", "meta", "data", "annotations", "drafts", "draft_exists", "comment_count",
    "import_id", "created_at", "updated_at",  # of annotations: Label Studio takes nested names for both
)  # fmt: skip
"""What must be asked of each task to tell."""

SAME_MOMENT_SECONDS = 2.0  # between an annotation's creation and its update, where nobody updated it


def worked_on(task: Mapping[str, Any], number: int) -> bool:
    """Whether people have done something on a task since the import of that number made it."""
    if task.get("drafts") or task.get("draft_exists") or task.get("comment_count"):
        return True
    annotations = task.get("annotations") or []
    return any(annotation.get("import_id") != number or changed(annotation) for annotation in annotations)


def drafted(rows: Iterable[Mapping[str, Any]]) -> set[int]:
    """Annotations with unsaved changes, whoever's: of what ``/api/tasks/N/drafts`` answers."""
    return {int(row["annotation"]) for row in rows if row.get("annotation")}


def changed(annotation: Mapping[str, Any]) -> bool:
    """Whether an annotation was changed after it was made."""
    made, touched = (datetime.fromisoformat(str(annotation[name])) for name in ("created_at", "updated_at"))
    return (touched - made).total_seconds() > SAME_MOMENT_SECONDS
