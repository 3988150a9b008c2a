"""What the pages' readers have at hand: pictures, labels in files, tiny models."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import cv2

from demo.labelled import Truth, draw_pictures, region
from tests.docs.commands import ROOT, blocks
from training.starter.scenes import SHAPES, SceneSettings

CLASSES = ("Car", "Bus", "Person")
SCENES = SceneSettings(size_wh=(256, 256), min_side=48, max_side=110, objects=(2, 4), camouflage=0.0)


def class_of(shape: str) -> str:
    """The class that a shape stands for."""
    return CLASSES[list(SHAPES).index(shape) % len(CLASSES)]


def pictures(folder: Path, first: int, count: int) -> dict[str, Truth]:
    """Scenes with their true boxes."""
    return draw_pictures(folder, range(9_700_000 + first, 9_700_000 + first + count), SCENES, class_of)


def yolo(folder: Path, first: int, count: int) -> Path:
    """A YOLO folder: ``images``, ``labels`` and ``labelmap.txt``."""
    (folder / "labels").mkdir(parents=True)
    (folder / "labelmap.txt").write_text("\n".join(CLASSES) + "\n")
    for name, (boxes, (width, height)) in pictures(folder / "images", first, count).items():
        lines = []
        for one in boxes:
            x0, y0, x1, y1 = one.xyxy
            number, middle = CLASSES.index(one.label), ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height)
            lines.append(f"{number} {middle[0]} {middle[1]} {(x1 - x0) / width} {(y1 - y0) / height}\n")
        (folder / "labels" / name).with_suffix(".txt").write_text("".join(lines))
    return folder


def zipped(folder: Path, target: Path) -> Path:
    """A folder as a zip."""
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    return target


def coco(folder: Path, first: int, count: int) -> Path:
    """``instances.json`` beside its pictures."""
    file: dict[str, list[dict[str, Any]]] = {
        "images": [], "annotations": [], "categories": [{"id": n, "name": name} for n, name in enumerate(CLASSES, 1)],
    }  # fmt: skip
    for number, (name, (boxes, (width, height))) in enumerate(pictures(folder, first, count).items(), 1):
        file["images"].append({"id": number, "file_name": name, "width": width, "height": height})
        for one in boxes:
            x0, y0, x1, y1 = one.xyxy
            about = {
                "image_id": number,
                "category_id": CLASSES.index(one.label) + 1,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
            }
            file["annotations"].append({"id": len(file["annotations"]) + 1, "area": 1, "iscrowd": 0, **about})
    (folder / "instances.json").write_text(json.dumps(file))
    return folder


def outlined(folder: Path, first: int, count: int) -> Path:
    """A YOLO folder whose boxes are polygons of five corners."""
    yolo(folder, first, count)
    for path in (folder / "labels").glob("*.txt"):
        lines = []
        for line in path.read_text().splitlines():
            number, *numbers = line.split()
            x, y, w, h = map(float, numbers)
            corners = [
                (x - w / 2, y - h / 2),
                (x, y - h / 2),
                (x + w / 2, y),
                (x + w / 2, y + h / 2),
                (x - w / 2, y + h / 2),
            ]
            lines.append(" ".join([number, *(f"{value:.6f}" for corner in corners for value in corner)]) + "\n")
        path.write_text("".join(lines))
    return folder


def tasks(folder: Path, annotated: int, others: int) -> list[dict[str, Any]]:
    """Pictures in a folder that Label Studio serves, as tasks; the first ones with their boxes as annotations."""
    made = []
    for number, (name, (boxes, size_wh)) in enumerate(pictures(folder, 0, annotated + others).items()):
        task: dict[str, Any] = {"data": {"image": f"/data/local-files/?d={folder.name}/{name}"}}
        if number < annotated:
            task["annotations"] = [{"result": [region(one.label, one.xyxy, size_wh) for one in boxes]}]
        made.append(task)
    return made


def package_of_the_page(folder: Path) -> None:
    """The files of docs/extending.md, written as the page has them."""
    shown = blocks(ROOT / "docs" / "extending.md")
    code = {kind: iter([block.text for block in shown if block.language == kind]) for kind in ("python", "toml")}
    for name in shown[0].text.split():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(next(code["toml" if path.suffix == ".toml" else "python"]))
    assert not any(True for left in code.values() for _ in left), "the page has code that no file of it takes"


def tiny_models(folder: Path) -> dict[str, str]:
    """A Qwen-VL and a SAM 3 of random weights, as settings."""
    from tator_ml.vlm.prompts import PromptStyle, compose
    from training.qwen.tiny import save_tiny as save_qwen
    from training.sam3.tiny import Shape
    from training.sam3.tiny import save_tiny as save_sam3

    asked = [compose("", CLASSES, PromptStyle(), output) for output in ("bbox", "point")]
    words = [text for one in asked for text in (one.system, one.user)] * 3
    qwen = save_qwen(folder / "qwen", "qwen2_5_vl", words=words)
    sam3 = save_sam3(folder / "sam3", Shape(side=56, vision_hidden=32, queries=8), ("red car", *CLASSES))
    return {"QWEN_MODEL_NAME": str(qwen), "SAM3_MODEL_ID": str(sam3), "QWEN_MAX_NEW_TOKENS": "48"}


def photograph(folder: Path) -> Path:
    """A folder of a person's own pictures."""
    pictures(folder, 900, 3)
    for path in folder.glob("*.png"):
        cv2.imwrite(str(path.with_suffix(".jpg")), cv2.imread(str(path)))
        path.unlink()
    return folder
