"""The house keeps its shape: imports point one way, web and laptop side stay light, nothing unsafe is called."""

from __future__ import annotations

import ast
import builtins
import functools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ORDER = ["label_config", "tator_sdk", "tator_ml", "training"]
PARTS = [
    {"running"}, {"images", "jobs"}, {"engine", "sam3", "vlm"}, {"quality"}, {"learning"},
    {"prompts"}, {"words"}, {"web"}, {"cli"},
]  # fmt: skip
"""Sub-packages of tator_ml: each imports of its own set and of those before it."""


def sources(package: str) -> Iterator[Path]:
    yield from (ROOT / package).rglob("*.py")


@functools.cache
def nodes(path: Path) -> list[ast.AST]:
    """Of a source; parsed and walked once for all tests."""
    return list(ast.walk(ast.parse(path.read_text())))


@functools.cache
def imported(path: Path) -> list[tuple[int, str]]:
    found = []
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.append((node.lineno, node.module or ""))
    return found


@pytest.mark.parametrize("package", ORDER)
def test_imports_point_left(package: str) -> None:
    own = ORDER.index(package)
    forbidden = {*ORDER[own + 1 :], "demo", "benchmarks", "tests"}
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sources(package)
        for line, name in imported(path)
        if name.split(".")[0] in forbidden
    ]
    assert not wrong, "\n".join(wrong)


def test_the_backends_parts_import_one_way() -> None:
    """Modules beside the sub-packages are what several of these share, or what puts them together."""
    place = {name: number for number, names in enumerate(PARTS) for name in names}
    folders = {path.parent.name for path in (ROOT / "tator_ml").glob("*/__init__.py")}
    assert folders == place.keys(), "a new sub-package has its place in PARTS"
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for own in folders
        for path in sources(f"tator_ml/{own}")
        for line, name in imported(path)
        for other in name.split(".")[1:2]
        if name.startswith("tator_ml.") and place.get(other, -1) > place[own]
    ]
    assert not wrong, "\n".join(wrong)


LIGHT = {
    "label_config.reader": {"torch", "numpy", "flask", "redis"},
    "tator_sdk.cli.connecting": {"torch", "flask", "redis", "rq"},
    "tator_sdk.cli; tator_sdk.cli.load_commands()": {
        "torch", "transformers", "sklearn", "numpy", "cv2", "PIL", "httpx", "redis", "rq", "flask", "label_studio_sdk",
        "ijson", "safetensors", "psutil",
    },
    "tator_ml.vlm.registry, tator_ml.vlm.coordinates": {"torch", "transformers", "peft"},
    "tator_ml.engine.detections": {"torch", "flask"},
    "tator_ml.engine.concepts, tator_ml.sam3.files": {"torch", "transformers", "flask"},
    "tator_ml.jobs": {"torch"},
    "tator_ml.web.server": {"torch", "open_clip", "segment_anything"},
}  # fmt: skip
"""What is imported, and what must not come with it; all verbs, too, as everybody who types one waits for that."""


@pytest.fixture(scope="module")
def come_along() -> dict[str, set[str]]:
    """Modules that are there after each of LIGHT, in one process: the later ones have what the first brought, too."""
    code = "import json, sys\n" + "".join(f"import {one}\nprint(json.dumps(sorted(sys.modules)))\n" for one in LIGHT)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return {one: set(json.loads(line)) for one, line in zip(LIGHT, done.stdout.splitlines(), strict=True)}


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_stay_light(module: str, come_along: dict[str, set[str]]) -> None:
    assert not LIGHT[module] & come_along[module]


def test_verbs_of_the_backend_are_left_out_without_its_extra() -> None:
    code = (
        "import sys; sys.modules['rq'] = None; from tator_sdk.cli import load_commands; app = load_commands();"
        "print(*(one.name or one.callback.__name__ for one in app.registered_commands),"
        "*(one.name for one in app.registered_groups))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    verbs = set(done.stdout.split())
    assert {"connect", "doctor", "status", "import", "datasets"} <= verbs
    assert not {"up", "serve", "worker", "healthy", "jobs", "models", "train", "warm", "polygons"} & verbs


def test_no_pickle_and_no_eval() -> None:
    wrong = []
    for package in [*ORDER, "demo", "benchmarks"]:
        for path in sources(package):
            for node in nodes(path):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"eval", "exec"}:
                    wrong.append(f"{path}:{node.lineno} {node.func.id}")
                called = node.func if isinstance(node, ast.Call) else None
                load = isinstance(called, ast.Attribute) and called.attr == "load"
                if load and ast.unparse(node.func) == "torch.load" and "weights_only=True" not in ast.unparse(node):
                    wrong.append(f"{path}:{node.lineno} torch.load without weights_only")
            wrong += [
                f"{path}:{line} {name}"
                for line, name in imported(path)
                if name.split(".")[0] in {"pickle", "dill", "joblib", "shelve", "marshal"}
            ]
    assert not wrong, "\n".join(wrong)


def test_own_errors_have_a_sentence_for_a_person() -> None:
    """``tator`` and the demo print those of ``TatorError``; any other would be a traceback."""
    bare = {name for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, BaseException)}
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for package in ["tator_sdk", "tator_ml", "demo"]
        for path in sources(package)
        for node in nodes(path)
        if isinstance(node, ast.ClassDef) and bare & {ast.unparse(base) for base in node.bases}
    ]
    assert [line.rsplit(" ", 1)[1] for line in wrong] == ["TatorError"], wrong


def test_no_file_has_become_two_nouns() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for package in [*ORDER, "demo", "benchmarks"]
        for path in sources(package)
        if (count := path.read_text().count("\n")) > 400
    }
    assert not long, long
