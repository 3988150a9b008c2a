"""A data set's way through the dashboard in a real browser: dropped, imported, outlined, tightened, taken back."""

from __future__ import annotations

import base64
import io
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from demo.labelled import Truth, draw_pictures
from demo.stack import DemoStack
from tator_sdk.studio import open_studio
from training.starter.scenes import CLASSES, SceneSettings

from .dashboard import check_accessible, check_fits_a_phone, opened, picture

pytestmark = [pytest.mark.browser, pytest.mark.studio, pytest.mark.timeout(400)]

SEEDS = range(9_870_000, 9_870_006)
NAMES = sorted(shape.capitalize() for shape in CLASSES)
LOOSE = 0.12  # of a box's sides, added on each side
WANTED = bool(os.environ.get("TATOR_PICTURES"))
"""Whether pictures for the documentation are taken; read now, as tests begin with an environment of their own."""
DROP = """([text, name]) => {
  const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
  const dropped = new DataTransfer();
  dropped.items.add(new File([bytes], name, { type: "application/zip" }));
  return dropped;
}"""
CUTTINGS = """async () => {
  const cuttings = [...document.querySelectorAll(".data-boxes image")].map((one) => fetch(one.href.baseVal));
  if (!(await Promise.all(cuttings)).every((one) => one.ok)) throw new Error("a cutting is missing");
}"""


@dataclass(frozen=True)
class Own:
    """An empty project, and an archive for it."""

    number: int
    archive: bytes
    studio: Any

    def boxes(self) -> list[Any]:
        """Values of all boxes that stand in its annotations."""
        tasks = self.studio.tasks.list(project=self.number, fields="all")
        return sorted(
            (one["value"]["x"], one["value"]["y"], one["value"]["width"], one["value"]["height"])
            for task in tasks
            for annotation in task.annotations
            for one in annotation["result"]
        )

    def predictions(self) -> int:
        """How many it has."""
        return len(list(self.studio.predictions.list(project=self.number)))


def yolo_of(folder: Path, truth: dict[str, Truth]) -> bytes:
    """Scenes with boxes that were drawn too large, as a zip."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("shapes/data.yaml", f"train: images\nnames: {[*NAMES, 'Ghost']}\n")
        for number, (name, (boxes, (width, height))) in enumerate(sorted(truth.items())):
            archive.write(folder / name, f"shapes/images/{name}")
            lines = [f"{len(NAMES)} 0.5 0.5 0.1 0.1"] if number == 0 else []
            for box in boxes:
                x0, y0, x1, y1 = box.xyxy
                dx, dy = LOOSE * (x1 - x0), LOOSE * (y1 - y0)
                x0, y0, x1, y1 = max(0, x0 - dx), max(0, y0 - dy), min(width, x1 + dx), min(height, y1 + dy)
                centre = (x0 + x1) / 2 / width, (y0 + y1) / 2 / height
                sides = (x1 - x0) / width, (y1 - y0) / height
                lines.append(" ".join([str(NAMES.index(box.label)), *(f"{one:.6f}" for one in (*centre, *sides))]))
            archive.writestr(f"shapes/labels/{Path(name).stem}.txt", "\n".join(lines) + "\n")
    return stream.getvalue()


@pytest.fixture(scope="module")
def own(stack: DemoStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Own]:
    folder = tmp_path_factory.mktemp("scenes")
    truth = draw_pictures(folder, SEEDS, SceneSettings(), str.capitalize)
    labels = "".join(f'<Label value="{name}"/>' for name in NAMES)
    config = (
        f'<View><Image name="image" value="$image"/><RectangleLabels name="box" toName="image">{labels}'
        f'</RectangleLabels><PolygonLabels name="outline" toName="image">{labels}</PolygonLabels></View>'
    )
    studio: Any = open_studio(stack.settings)
    number = studio.projects.create(title="Shapes from a zip", label_config=config).id
    yield Own(number, yolo_of(folder, truth), studio)
    studio.projects.delete(number)


def shown(tab: Any, name: str) -> None:
    """The page as it stands is for everybody; kept for the documentation where that is wished."""
    check_accessible(tab)
    check_fits_a_phone(tab)
    if WANTED:
        picture(tab, f"dashboard-{name}")


def done(tab: Any) -> None:
    """The job of the page has ended well."""
    tab.wait_for_selector("#standing .badge:text-matches('done|failed|cancelled')", timeout=120_000)
    assert tab.locator("#standing .badge").first.inner_text() == "done", tab.locator("#standing").inner_text()


def test_a_zip_is_dropped_imported_outlined_tightened_and_taken_back(page: Any, stack: DemoStack, own: Own) -> None:
    base = f"{stack.settings.backend_url}/tator/data"
    with opened(page, f"{base}/import?project={own.number}") as tab:
        tab.on("dialog", lambda dialog: dialog.accept())
        assert tab.input_value("#send-project") == str(own.number)
        shown(tab, "import")
        text = base64.b64encode(own.archive).decode()
        tab.dispatch_event("#drop", "drop", {"dataTransfer": tab.evaluate_handle(DROP, [text, "shapes.zip"])})
        assert "shapes.zip" in tab.locator("#chosen").inner_text()
        tab.click("text=Send and look at it")
        tab.wait_for_selector("#found #would", timeout=60_000)
        assert not list(own.studio.tasks.list(project=own.number)), "a look changes nothing"
        assert "not in the project" in tab.locator("#found").inner_text()
        shown(tab, "import-look")
        tab.click("button:has-text('Import into')")
        done(tab)
        drawn = own.boxes()
        assert len(list(own.studio.tasks.list(project=own.number))) == len(SEEDS) and len(drawn) > len(SEEDS)

        tab.goto(f"{base}/polygons?project={own.number}")
        tab.click("summary:has-text('Data set')")
        tab.check("#field-push")
        tab.click("button:text-is('Build')")
        done(tab)
        tab.wait_for_selector(".data-samples polygon")
        shown(tab, "polygons")
        assert own.predictions() == len(SEEDS)
        tab.click("button:text-is('Take it back')")
        done(tab)
        assert own.predictions() == 0

        tab.goto(f"{base}/tweak?project={own.number}")
        tab.click("summary:has-text('What is done')")
        tab.check("#field-in_place")
        tab.click("button:text-is('Look first')")
        done(tab)
        assert tab.locator(".data-boxes .after").count() and own.boxes() == drawn
        tab.evaluate(CUTTINGS)
        shown(tab, "tweak")
        tab.click("button:text-is('Tighten them')")
        done(tab)
        assert own.boxes() != drawn
        tab.click("button:text-is('Take it back')")
        done(tab)
        assert own.boxes() == drawn
        shown(tab, "undo")

        tab.goto(base)
        tab.wait_for_selector("#sets .badge:text-is('unchanged')")
        shown(tab, "data-sets")
