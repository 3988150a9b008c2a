"""Import: how much faster than a call for each task, and how much of Label Studio's own bulk endpoint is reached."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

from benchmarks.data_studio import CLASSES, box_result, make_project, private_studio, say
from benchmarks.report import Figure
from tator_sdk.bulk import open_bulk
from tator_sdk.importing import Importer
from tator_sdk.requests import DataImport
from tator_sdk.settings import Settings
from tator_sdk.studio import open_studio

PICTURES, BOXES, SINGLE, TOGETHER = 10_000, 10, 300, 1000


def measure(pictures: int = PICTURES, single: int = SINGLE) -> list[Figure]:
    with private_studio() as (studio, settings):
        root = Path(str(studio.settings.document_root))
        draw_set(root / "set", pictures)
        ready = [ready_made(number) for number in range(pictures)]
        say(f"{pictures} pictures with {pictures * BOXES} boxes")
        one_by_one = single / single_calls(settings, ready[:single])
        half = pictures // 2
        seconds = bulk(settings, ready[:half])
        ours, growth = imported(settings, root, pictures)
        seconds += bulk(settings, ready[half:])  # before and after, so that a noisy moment meets both
    rate, endpoint = pictures / ours, pictures / seconds
    return [
        Figure("data.import_vs_single", rate / one_by_one, "x", "higher", 20.0),
        Figure("data.import_vs_bulk", rate / endpoint, "of bulk", "higher", 0.8),
        Figure("data.import_memory_mb", growth / 2**20, "MiB", "lower", 200.0),
        Figure("data.import_pictures_per_second", rate, "1/s", "higher"),
        Figure("data.bulk_pictures_per_second", endpoint, "1/s", "higher"),
        Figure("data.single_pictures_per_second", one_by_one, "1/s", "higher"),
    ]


def draw_set(folder: Path, pictures: int) -> None:
    """A YOLO folder of one tiny picture under many names: only records travel."""
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    (folder / "classes.txt").write_text("\n".join(CLASSES))
    first = folder / "images" / "000000.png"
    Image.effect_noise((64, 48), 50).convert("RGB").save(first)
    rng = random.Random(3)
    for number in range(pictures):
        if number:
            os.link(first, folder / "images" / f"{number:06}.png")
        lines = []
        for _ in range(BOXES):
            x, y, width, height = (rng.uniform(*span) for span in ((0.2, 0.8), (0.2, 0.8), (0.05, 0.3), (0.05, 0.3)))
            lines.append(f"{rng.randrange(len(CLASSES))} {x:.6f} {y:.6f} {width:.6f} {height:.6f}\n")
        (folder / "labels" / f"{number:06}.txt").write_text("".join(lines))


def ready_made(number: int) -> dict[str, Any]:
    """A task as whoever has it ready would send it: neither key nor mark of ours."""
    numbers = range(number * BOXES, (number + 1) * BOXES)
    address = f"/data/local-files/?d=set/images/{number:06}.png"
    return {"data": {"image": address}, "annotations": [{"result": box_result(*numbers)}]}


def single_calls(settings: Settings, tasks: Sequence[dict[str, Any]]) -> float:
    """Seconds for a call of the SDK for each task; the one that takes the annotation along."""
    project = make_project(settings, "Single calls")
    studio: Any = open_studio(settings)
    begun = time.perf_counter()
    for task in tasks:
        studio.projects.import_tasks(id=project, request=[task])
    return time.perf_counter() - begun


def bulk(settings: Settings, tasks: Sequence[dict[str, Any]]) -> float:
    """Seconds of Label Studio's bulk endpoint alone."""
    project = make_project(settings, "Bulk endpoint")
    contents = [json.dumps(tasks[at : at + TOGETHER]).encode() for at in range(0, len(tasks), TOGETHER)]
    with open_bulk(settings) as api:
        begun = time.perf_counter()
        for content in contents:
            api.post(f"/api/projects/{project}/import", content)
        return time.perf_counter() - begun


def imported(settings: Settings, root: Path, pictures: int) -> tuple[float, float]:
    """Seconds of the import from beginning to end, and growth in bytes from its first thousand on."""
    project, process = make_project(settings, "Import"), psutil.Process()
    request = DataImport(path=root / "set", kind="yolo", project=project, local_files=root)
    first, most = 0, 0

    def progress(done: int, total: int, what: str) -> None:
        nonlocal first, most
        if done and done % 250 == 0:
            held = process.memory_info().rss
            first = first or (held if done >= 1000 else 0)
            most = max(most, held)

    begun = time.perf_counter()
    report = Importer(request, settings, progress).run()
    seconds = time.perf_counter() - begun
    with open_bulk(settings) as api:
        about = api.get(f"/api/projects/{project}")
        there = about["task_number"], about["total_annotations_number"], sum(report.shapes.regions.values())
        if there != (pictures, pictures, pictures * BOXES) or report.created != pictures:
            raise SystemExit(f"The import is not complete: {there}")
        sample = next(api.tasks(project, "id", "annotations", "result"))
        if len(sample["annotations"][0]["result"]) != BOXES:
            raise SystemExit(f"The first task has {len(sample['annotations'][0]['result'])} boxes.")
    again = Importer(request, settings).run()
    if again.created or again.there != pictures:
        raise SystemExit(f"A second import added {again.created} pictures.")
    say(f"imported in {seconds:.1f} s; again: nothing added, {again.seconds:.1f} s")
    return seconds, max(0.0, most - first)
