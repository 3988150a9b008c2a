"""The demo's pictures: generated scenes with known truth, or a person's own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from tator_sdk.formats.pictures import is_picture
from training.starter.names import DISPLAY_NAMES, display_name
from training.starter.prompts import center_point
from training.starter.scenes import SceneSettings, draw_scene

SCENES = 24
FIRST_SEED = 9_900_000  # held out: training stays below 9,000,000
SETTINGS = SceneSettings(size_wh=(768, 576), min_side=80, max_side=260, objects=(4, 7), camouflage=0.1)


@dataclass(frozen=True)
class TruthObject:
    """One object of a generated scene.

    Attributes:
        label: the demo's class.
        xyxy: tight box in pixels.
        point: well inside of it, pixels.
    """

    label: str
    xyxy: tuple[float, float, float, float]
    point: tuple[float, float]


def classes() -> list[str]:
    """The demo's classes, as people read them."""
    return list(DISPLAY_NAMES.values())


def draw_scenes(folder: Path, count: int = SCENES) -> Iterator[int]:
    """Draw the first ``count`` scenes and their truth that are missing; yields how many are there after each."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        picture, truth = folder / f"scene-{number:02}.png", folder / f"scene-{number:02}.json"
        if not (picture.exists() and truth.exists()):
            scene = draw_scene(FIRST_SEED + number, SETTINGS)
            objects = []
            for index, one in enumerate(scene.objects):
                x0, y0, x1, y1 = (float(edge) for edge in one.xyxy)
                point = center_point(scene.mask(index))
                objects.append(asdict(TruthObject(display_name(one.shape), (x0, y0, x1, y1), point)))
            part = picture.with_suffix(".part")
            Image.fromarray(scene.image).save(part, "PNG")
            part.replace(picture)
            truth.write_text(json.dumps(objects))
        yield number + 1


def _free_name(name: str, taken: set[str]) -> str:
    """The name, or one with a number where another picture has it: ``a/b.png`` and ``a-b.png`` are two."""
    stem, suffix = Path(name).stem, Path(name).suffix
    number = 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}{suffix}"
    taken.add(name)
    return name


def truth_of(picture: Path) -> list[TruthObject]:
    """The objects of a generated scene."""
    kept = json.loads(picture.with_suffix(".json").read_text())
    return [TruthObject(one["label"], tuple(one["xyxy"]), tuple(one["point"])) for one in kept]


def copy_own(source: Path, folder: Path) -> Iterator[int]:
    """Link a person's pictures into the folder that Label Studio may serve; theirs are never changed."""
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    taken: set[str] = set()
    for picture in sorted(source.rglob("*")):
        if not is_picture(picture.name) or not picture.is_file():
            continue
        target = folder / _free_name("-".join(picture.relative_to(source).parts), taken)
        if not target.exists():
            try:
                target.hardlink_to(picture)
            except OSError:  # another file system
                shutil.copyfile(picture, target)
        count += 1
        yield count
