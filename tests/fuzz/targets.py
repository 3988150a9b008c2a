"""What is fuzzed: each target reads bytes, and raises nothing but what its reader promises."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from werkzeug.exceptions import BadRequest

from label_config.errors import LabelConfigError
from label_config.reader import read as read_config
from tator_ml.engine.crops import CropRecipe
from tator_ml.engine.head import METADATA_FILE, WEIGHTS_FILE, Head, HeadError
from tator_ml.prompts.standing import standing_boxes
from tator_ml.vlm.parsing import parse
from tator_ml.web.body import read_predict
from tator_sdk.formats.coco import CocoReader
from tator_sdk.formats.dataset import DatasetError
from tator_sdk.formats.names import find_names
from tator_sdk.formats.opening import open_dataset
from tator_sdk.formats.yolo_lines import numbered_lines, read_line
from tator_sdk.shapes import shapes_of_result

PAYLOADS = Path(__file__).parents[1] / "payloads"
MEMORY = Path("/dev/shm")  # files that are written ten thousand times a second
CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="box" toName="image" smart="true">'
    '<Label value="Car"/><Label value="Bus" predicted_values="coach"/></RectangleLabels>'
    '<PolygonLabels name="poly" toName="image"><Label value="Car"/></PolygonLabels>'
    '<BrushLabels name="brush" toName="image"><Label value="Car"/></BrushLabels>'
    '<EllipseLabels name="round" toName="image"><Label value="Car"/></EllipseLabels>'
    '<KeyPointLabels name="point" toName="image" smart="true" model_output="box"><Label value="Car"/></KeyPointLabels>'
    '<TextArea name="words" toName="image" smart="true"/></View>'
)
INTERFACE = read_config(CONFIG)
COCO: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 6}],
    "categories": [{"id": 1, "name": "Car"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 3, 2], "segmentation": [[1, 1, 4, 1, 4, 3]]},
        {"id": 2, "image_id": 1, "category_id": 1, "segmentation": {"size": [6, 8], "counts": [4, 2, 42]}},
        {"id": 3, "image_id": 1, "category_id": 1, "segmentation": {"size": [6, 8], "counts": "04d0"}},
    ],
}
REGIONS: list[dict[str, Any]] = [
    {"id": "a", "from_name": "box", "to_name": "image", "type": "rectanglelabels", "original_width": 64,
     "original_height": 48, "value": {"x": 1, "y": 2, "width": 30, "height": 20, "rotation": 5,
                                      "rectanglelabels": ["Car"]}},
    {"id": "b", "from_name": "poly", "to_name": "image", "type": "polygonlabels", "original_width": 64,
     "original_height": 48, "value": {"points": [[1, 1], [9, 1], [5, 9]], "polygonlabels": ["Car"]}},
    {"id": "c", "from_name": "brush", "to_name": "image", "type": "brushlabels", "original_width": 8,
     "original_height": 8, "value": {"format": "rle", "rle": [0, 0, 1, 0, 57, 27, 12], "brushlabels": ["Car"]}},
    {"id": "d", "from_name": "round", "to_name": "image", "type": "ellipselabels", "original_width": 64,
     "original_height": 48, "value": {"x": 20, "y": 20, "radiusX": 5, "radiusY": 9, "ellipselabels": ["Car"]}},
]  # fmt: skip


@dataclass(frozen=True)
class Target:
    """One reader.

    Attributes:
        name: for people, and of its folder of found input.
        read: is given bytes, and raises what is wrong.
        seeds: input to begin with.
        words: that the format is made of, for libFuzzer's dictionary.
        longest: input in bytes.
    """

    name: str
    read: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    words: tuple[str, ...] = ()
    longest: int = 4096


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape" if data[:1] == b"\xff" else "replace")


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as name:
        yield Path(name)


def _config(data: bytes) -> None:
    with suppress(LabelConfigError):
        interface = read_config(_text(data))
        for image in interface.images:
            interface.outputs_for(image.name)


def _answer(data: bytes) -> None:
    for one in parse(_text(data)).detections:
        json.dumps([one.label, one.box, one.point], allow_nan=False).encode()


def _yolo_line(data: bytes) -> None:
    kind = ("detect", "segment", "obb")[data[0] % 3] if data else "detect"
    with suppress(ValueError):
        read_line(_text(data[1:]), 1, kind, ["Car", "Bus"], (64, 48))


def _yolo_folder(data: bytes) -> None:
    """Names, a data.yaml and a label file, parted by 0xFF."""
    labels, names, yaml = [*data.split(b"\xff", 2), b"", b""][:3]
    with _folder() as folder:
        (folder / "images").mkdir()
        (folder / "labels").mkdir()
        (folder / "images" / "a.png").write_bytes(PICTURE)
        (folder / "labels" / "a.txt").write_bytes(labels)
        (folder / "classes.txt").write_bytes(names or b"Car\nBus\n")
        if yaml:
            (folder / "data.yaml").write_bytes(yaml)
        list(numbered_lines(folder / "labels" / "a.txt"))
        with suppress(DatasetError):
            find_names(folder)
        with suppress(DatasetError), closing(open_dataset(folder, "detect")) as reader:
            list(reader.pictures())
            list(reader.strays())


def _coco(data: bytes) -> None:
    with _folder() as folder:
        (folder / "a.png").write_bytes(PICTURE)
        (folder / "set.json").write_bytes(data)
        with suppress(DatasetError), closing(CocoReader([folder / "set.json"])) as reader:
            for picture in reader.pictures():
                assert all(one.label in reader.classes for one in picture.shapes)


def _zip(data: bytes) -> None:
    with _folder() as folder:
        (folder / "set.zip").write_bytes(data)
        with suppress(DatasetError), closing(open_dataset(folder / "set.zip", "detect")) as reader:
            list(reader.pictures())
        assert [one.name for one in folder.iterdir()] == ["set.zip"]


def _payload(data: bytes) -> None:
    with suppress(BadRequest):
        body = read_predict(data)
        for task in body.get("tasks") or ():
            if hasattr(task, "region_ids"):
                for source in ("annotations", "drafts", "predictions"):
                    task.region_ids(source)
                dict(task)


def _regions(data: bytes) -> None:
    try:
        items = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(items, list):
        shapes_of_result(items, INTERFACE)
        standing_boxes(items, INTERFACE)


def _head(data: bytes) -> None:
    """The two files of a head, parted by their first 0xFF 0xFF; the checksum is made to fit, to come past it."""
    about, _, weights = data.partition(b"\xff\xff")
    with suppress(ValueError, RecursionError):
        metadata = json.loads(about)
        if isinstance(metadata, dict):
            about = json.dumps(metadata | {"weights_sha256": hashlib.sha256(weights).hexdigest()}).encode()
    with suppress(HeadError):
        Head.of_files({METADATA_FILE: about, WEIGHTS_FILE: weights}, "fuzzed")


def _picture() -> bytes:
    import io

    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (8, 6), "white").save(stream, "PNG")
    return stream.getvalue()


def _zipped() -> bytes:
    import io
    import zipfile

    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("set/images/a.png", PICTURE)
        archive.writestr("set/labels/a.txt", "0 .5 .5 .2 .2\n")
        archive.writestr("set/classes.txt", "Car\n")
    return stream.getvalue()


def _small_head() -> bytes:
    weight, bias = np.eye(2, dtype=np.float32), np.zeros(2, np.float32)
    head = Head(("Car", "Bus"), weight, bias, 1.0, 0.5, 0.1, "starter", CropRecipe(), "head-1")
    files = head.files()
    return files[METADATA_FILE] + b"\xff\xff" + files[WEIGHTS_FILE]


PICTURE = _picture()
TARGETS = {
    one.name: one
    for one in (
        Target("config", _config, (CONFIG.encode(), b"<View/>"),
               ("<Image", "<Label", "toName", "name=", "value=", "smart=", "model_", "<!DOCTYPE", "<!ENTITY", "&lt;")),
        Target("answer", _answer,
               (b'[{"bbox_2d": [1, 2, 3, 4], "label": "Car"}]', b'```json\n{"detections": [{"point": [1, 2]}]}\n```'),
               ("bbox_2d", "point_2d", "label", "detections", "```json", "1e999", "null", "\\\\ud800", "[[[[")),
        Target("yolo-line", _yolo_line,
               (b"\x000 .5 .5 .2 .2", b"\x010 .1 .1 .9 .1 .5 .9", b"\x021 .1 .1 .2 .1 .2 .2 .1 .2"),
               ("nan", "inf", "1e999", "-0", "\\x00")),
        Target("yolo-folder", _yolo_folder,
               (b"0 .5 .5 .2 .2\n", b"0 .5 .5 .2 .2\n\xffA\nB\n\xffnames: [A, B]\ntrain: images\n",
                b"1 .5 .5 .2 .2\n\xffA\n\xffpath: ../..\nval: [images, labels]\nnames: {0: A}\nnc: 1\n"),
               ("names:", "train:", "val:", "path:", "nc:", "../", "!!python", "&a", "*a", "- ")),
        Target("coco", _coco, (json.dumps(COCO).encode(),),
               ("images", "annotations", "categories", "segmentation", "counts", "bbox", "iscrowd", "1e999", "../")),
        Target("zip", _zip, (_zipped(),), ("PK\\x03\\x04", "PK\\x01\\x02", "PK\\x05\\x06", "../")),
        Target("payload", _payload, tuple(
            json.dumps(json.loads(path.read_text())["body"]).encode()[:8000]
            for path in sorted(PAYLOADS.glob("predict_*.json"))[:6]
        ), ("tasks", "params", "context", "result", "annotations", "drafts", "predictions", "id"), 8192),
        Target("regions", _regions, (json.dumps(REGIONS).encode(), *(json.dumps([one]).encode() for one in REGIONS)),
               ("value", "points", "rle", "format", "imageDataURL", "rotation", "original_width", "1e999", "labels")),
        Target("head", _head, (_small_head(),),
               ("classes", "temperature", "threshold", "data_offsets", "F32", "shape"), 16384),
    )
}  # fmt: skip
"""By name."""
