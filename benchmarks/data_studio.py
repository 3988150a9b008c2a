"""A private Label Studio for the figures about data: nothing but it runs, so that nothing else takes its time."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from demo.environment import ENVIRONMENT
from demo.label_studio import LabelStudio, StudioSettings
from tator_sdk.bulk import BulkApi, open_bulk
from tator_sdk.settings import Settings

CLASSES = ("Car", "Van")
CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="box" toName="image">'
    + "".join(f'<Label value="{name}"/>' for name in CLASSES)
    + "</RectangleLabels></View>"
)
DATABASE = Path("data") / "label_studio.sqlite3"


@contextmanager
def private_studio() -> Iterator[tuple[LabelStudio, Settings]]:
    """A running Label Studio in a folder of its own, and settings of a Tator in another."""
    if not (ENVIRONMENT / "bin" / "label-studio").exists():
        raise SystemExit("These figures need a real Label Studio: make test builds its environment.")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        files = Path(folder) / "files"
        files.mkdir()
        with LabelStudio(StudioSettings(home=Path(folder) / "ls", port=18080, document_root=files)) as studio:
            yield studio, settings_for(studio, Path(folder) / "tator")


def settings_for(studio: LabelStudio, home: Path) -> Settings:
    token = SecretStr(studio.account.token)
    return Settings(_env_file=None, home=home, label_studio_url=studio.url, label_studio_api_key=token)


def make_project(settings: Settings, title: str) -> int:
    with open_bulk(settings) as api:
        content = json.dumps({"title": title, "label_config": CONFIG}).encode()
        return int(api.post("/api/projects/", content)["id"])


def make_tasks(api: BulkApi, project: int, count: int) -> list[int]:
    """Tasks with nothing on them; their numbers."""
    made: list[int] = []
    while len(made) < count:
        some = [
            {"data": {"image": f"/data/local-files/?d={number:06}.png"}}
            for number in range(len(made), min(count, len(made) + 2000))
        ]
        content = json.dumps(some).encode()
        made += api.post(f"/api/projects/{project}/import", content, {"return_task_ids": "true"})["task_ids"]
    return made


def box_result(*numbers: int) -> list[dict[str, Any]]:
    """Regions that lie where their numbers say."""
    return [
        {
            "id": f"r{place}", "from_name": "box", "to_name": "image", "type": "rectanglelabels",
            "original_width": 640, "original_height": 480, "image_rotation": 0,
            "value": {
                "x": number * 7.31 % 80, "y": number * 3.17 % 80, "width": 12.5, "height": 14.25, "rotation": 0,
                "rectanglelabels": [CLASSES[number % len(CLASSES)]],
            },
        }
        for place, number in enumerate(numbers)
    ]  # fmt: skip


def say(said: str) -> None:
    print(f"  {said}", file=sys.stderr, flush=True)
