"""Models on pages: what answers, what there is, what to do with it, and whose it is."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import g

from tator_ml.learning.confusion import confusion_of
from tator_ml.learning.registry import HeadRegistry
from tator_ml.learning.stores import head_registry
from tator_ml.vlm.registry import ADAPTER, QwenEntry, RunMetadata, qwen_registry
from tator_ml.web.access import Visitor
from tator_ml.web.dashboard.models.comparison import compare
from tator_ml.web.dashboard.models.versions import HEAD_FIGURES, of_head
from tator_sdk.settings import Settings
from tests.cli.conftest import head, report

from .conftest import Site


@pytest.fixture
def heads(settings: Settings) -> HeadRegistry:
    return head_registry(settings)


@pytest.fixture
def as_member(site: Site) -> Callable[[int], None]:
    """Look with the eyes of somebody who may see one project."""

    def become(project: int) -> None:
        def swap() -> None:
            g.visitor = Visitor("ann@example.com", frozenset({project}))

        site.client.application.before_request(swap)

    return become


def example(image: str, held_out: bool) -> dict[str, Any]:
    return {"image": image, "held_out": held_out}


def tuned(settings: Settings, project: int | None, map50: float = 0.6, **more: Any) -> QwenEntry:
    """A Qwen with figures and without sense."""
    import numpy as np
    from safetensors.numpy import save_file

    def write(folder: Path) -> None:
        (folder / ADAPTER).mkdir()
        save_file({"a": np.zeros(2, np.float32)}, folder / ADAPTER / "adapter_model.safetensors")

    scores = {"map50": map50, "f1": 0.5, "per_class": {"Car": map50}}
    gate = {"activate": True, "reason": "it is better", "candidate": scores, "active": scores, "pictures": 12}
    metadata = RunMetadata(
        id="", label="cars", classes=("Car",), model_id="Qwen/Q", created_at="", latest_checkpoint=ADAPTER,
        source_dataset="project 3", method="lora", project=project, system_prompt="Be <b>exact</b>.",
        system_prompt_noise=0.05, dataset_context="From a drone.", use_qlora=False, max_image_dim=1024,
        max_detections_per_sample=200, trained_by={"project": project, "rank": 4},
    )  # fmt: skip
    return qwen_registry(settings).add(
        metadata, {"gate": gate, "pictures": {"train": 40, "held_out": 12}, **more}, write
    )


def test_a_project_shows_what_answers_and_its_history(site: Site, heads: HeadRegistry) -> None:
    first = heads.add(head("Car", "Bus"), 3, report("Car", "Bus"))
    second = heads.add(head("Car", "Bus", seed=1), 3, report("Car", "Bus", active=0.8, activate=False))
    assert "starter" in site.page("/tator/models?project=3")
    for entry in (first, second):
        answer = site.client.post(f"/tator/models/head/{entry.version}/activate", data={"project": "3"})
        assert answer.status_code == 302
    page = site.page("/tator/models?project=3")
    assert f"{second.version} is active in project 3. After its training it was held back" in page
    assert "chosen by a person, by this machine" in page and "0.875" in page and "77 boxes in 20 pictures" in page
    assert site.services.projects.get(3).head == second.version
    site.client.post("/tator/models/head/rollback", data={"project": "3"})
    assert site.services.projects.get(3).head == first.version
    assert f"Project 3 is back at {first.version}" in site.page("/tator/models?project=3")
    site.client.post("/tator/models/head/base/activate", data={"project": "3"})
    assert site.services.projects.get(3).head is None
    assert site.services.projects.activations(3)[-1].by == "this machine"


def test_one_version_in_full(site: Site, heads: HeadRegistry, settings: Settings) -> None:
    entry = heads.add(head("Car", "Bus", "<Van>"), 3, report("Car", "Bus", "<Van>", job="clip-3-1"))
    page = site.page(f"/tator/models/head/{entry.version}")
    assert "<strong>3 of 8</strong> Bus taken for Car (38 %)" in page and "&lt;Van&gt;" in page and "<Van>" not in page
    assert "Tram&#39; is left out" in page and "clip-3-1" in page
    run = tuned(settings, 3)
    page = site.page(f"/tator/models/qwen/{run.id}")
    assert "Be &lt;b&gt;exact&lt;/b&gt;." in page and "From a drone." in page and "40 pictures" in page
    assert ">Rank</th><td>4</td>" in page and "mAP@0.5" in page
    assert site.page("/tator/models/sam3/base") and site.page("/tator/models/head/base")
    for missing in ("head/none-1", "qwen/qwen-p3", "toaster/base"):
        site.page(f"/tator/models/{missing}", 404)


def test_two_versions_side_by_side(site: Site, heads: HeadRegistry) -> None:
    first = heads.add(head("Car", "Bus"), 3, report("Car", "Bus"), [example("a", True), example("b", True)])
    better = report("Car", "Bus", active=0.8, active_version=first.version)
    better["metrics"]["held_out"] |= {"macro_f1": 0.9, "calibration_error": 0.3}
    better["gate"]["active_version"] = first.version
    better["request"] = {"project": 3, "solver": "saga", "activation": "never"}
    second = heads.add(head("Car", "Bus", seed=1), 3, better, [example("b", True), example("c", False)])
    page = site.page(f"/tator/models/compare?version=head:{second.version}&version=head:{first.version}")
    assert "2 and 1 were held out, 1 of them from both" in page
    assert f"On the same 4 held-out pictures, when {second.version} was trained" in page
    assert '<span class="up">+0.025</span>' in page and ">Solver</th>" in page and "saga" in page
    for query in ("", f"version=head:{first.version}", f"version=head:{first.version}&version=qwen:base"):
        assert site.client.get(f"/tator/models/compare?{query}").status_code == 302
    same = compare(of_head(first), of_head(first), HEAD_FIGURES)
    assert not same.caution and not same.settings and all(line.better == 0 for line in same.figures)


def test_many_classes_are_cut_to_the_most_confused() -> None:
    names = [f"c{n}" for n in range(40)]
    counts = [[0] * 40 for _ in names]
    counts[30][35], counts[30][30] = 6, 2
    held_out = {"boxes": 8, "per_class": [{"class": name} for name in names], "confusion": counts}
    found = confusion_of({"held_out": held_out})
    assert found is not None and len(found.names) == 25 and found.classes == 40 and {"c30", "c35"} <= set(found.names)
    assert (found.pairs[0].true, found.pairs[0].said, found.pairs[0].count, found.pairs[0].of) == ("c30", "c35", 6, 8)
    row = found.cells[found.names.index("c30")]
    assert sum(cell.share for cell in row) == 1 and sum(cell.right and cell.count for cell in row) == 2
    assert confusion_of({"held_out": {**held_out, "confusion": counts[:3]}}) is None


def test_a_head_goes_out_and_comes_back_and_a_pickle_does_not(site: Site, heads: HeadRegistry) -> None:
    entry = heads.add(head("Car", "Bus"), 3, report("Car", "Bus"), [example("secret", False)])
    packed = site.client.get(f"/tator/models/head/{entry.version}/download").data
    assert "examples.json" not in zipfile.ZipFile(io.BytesIO(packed)).namelist()

    def send(data: bytes, name: str) -> str:
        form = {"project": "4", "archive": (io.BytesIO(data), name)}
        answer = site.client.post("/tator/models/add", data=form, follow_redirects=True)
        return answer.text

    assert "It answers once it is activated." in send(packed, "../../etc/cars.zip")
    added = heads.list(4)[0]
    assert added.report["imported_version"] == entry.version and added.head().classes == ("Car", "Bus")
    assert "is a pickle" in send(b"cos\nsystem\n(S'id'\ntR.", "head.pkl") and len(heads.list()) == 2
    assert "not an archive" in send(b"nonsense", "head.zip")
    assert site.client.get("/tator/models/qwen/base/download").status_code == 400


def test_a_run_is_sent_while_it_is_packed(
    site: Site, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = tuned(settings, 3)
    assert run.folder is not None
    (run.folder / "examples.json").write_text("[]")
    monkeypatch.setattr("tempfile.mkdtemp", lambda **_: pytest.fail("gigabytes on the disk of temporary files"))
    answer = site.client.get(f"/tator/models/qwen/{run.id}/download")
    names = zipfile.ZipFile(io.BytesIO(answer.data)).namelist()
    assert sorted(names) == ["adapter/adapter_model.safetensors", "metadata.json", "metrics.json"]
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{run.id}.zip"'


def test_what_is_active_is_not_deleted(site: Site, heads: HeadRegistry, settings: Settings) -> None:
    entry, run = heads.add(head("Car"), 3, report("Car", "Bus")), tuned(settings, 3)
    heads.activate(3, entry.version, "person")
    address = f"/tator/models/head/{entry.version}/delete"
    assert "is active in project 3" in site.client.post(address, follow_redirects=True).text and heads.list()
    heads.add(head("Car"), 3, report("Car", "Bus"))
    site.services.projects.activate(3, None, "person")
    assert f"{entry.version} is deleted." in site.client.post(address, follow_redirects=True).text
    assert [one.version for one in heads.list()] != [entry.version] and len(heads.list()) == 1
    site.client.post(f"/tator/models/qwen/{run.id}/delete")
    assert len(qwen_registry(settings).entries()) == 1


def test_switches_of_a_project(site: Site) -> None:
    form = {
        "project": "3", "segmenter": "sam2-tiny", "assists": "refine", "output": "polygon", "preload": "no",
        "train_after": "0", "words": "car, bus", "keep_words": "yes",
    }  # fmt: skip
    site.client.post("/tator/models/choices", data=form)
    chosen = site.services.projects.get(3)
    assert (chosen.segmenter, chosen.assists, chosen.output, chosen.preload) == (
        "sam2-tiny",
        ("refine",),
        "polygon",
        False,
    )
    assert chosen.train_after == 0 and chosen.words is not None and chosen.words.text == "car, bus"
    page = site.page("/tator/models?project=3")
    assert '<option value="sam2-tiny" selected>' in page and 'value="car, bus"' in page
    site.client.post("/tator/models/choices", data={"project": "3", "assists": "none"})
    chosen = site.services.projects.get(3)
    assert chosen.assists == () and chosen.segmenter is None and chosen.preload is None and chosen.words is None
    site.client.post("/tator/models/choices", data={"project": "3", "segmenter": "rm -rf"})
    assert site.services.projects.get(3).segmenter is None, "what does not exist is refused in a sentence"
    assert "rm -rf" in site.page("/tator/models?project=3")
    assert site.client.post("/tator/models/choices", data={"project": "3", "train_after": "-1"}).status_code == 400


def test_other_peoples_models_are_not_shown_nor_touched(
    site: Site, heads: HeadRegistry, as_member: Callable[[int], None]
) -> None:
    mine, theirs = (heads.add(head("Car", seed=n), n, report("Car", "Bus")) for n in (1, 2))
    shared = heads.add(head("Car", seed=3), 2, report("Car", "Bus"))
    heads.activate(1, shared.version, "person")
    heads.activate(2, theirs.version, "person")
    as_member(1)
    page = site.page("/tator/models")
    assert mine.version in page and shared.version in page and theirs.version not in page
    assert "active in 1" in page and "active in 2" not in page
    site.page("/tator/models?project=2", 403)
    for address in (f"head/{theirs.version}", f"head/{theirs.version}/download"):
        site.page(f"/tator/models/{address}", 403)
    site.page(f"/tator/models/compare?version=head:{mine.version}&version=head:{theirs.version}", 403)
    post = site.client.post
    assert post(f"/tator/models/head/{mine.version}/activate", data={"project": "2"}).status_code == 403
    assert post(f"/tator/models/head/{theirs.version}/activate", data={"project": "1"}).status_code == 403
    assert post(f"/tator/models/head/{shared.version}/delete").status_code == 403
    assert post("/tator/models/head/rollback", data={"project": "2"}).status_code == 403
    assert post("/tator/models/choices", data={"project": "2"}).status_code == 403
    assert post("/tator/models/add", data={}).status_code == 403
    assert post(f"/tator/models/head/{mine.version}/activate", data={"project": "1"}).status_code == 302


def test_a_hundred_models_open_at_once(site: Site, heads: HeadRegistry, settings: Settings) -> None:
    names = [f"class {n}" for n in range(20)]
    for n in range(70):
        heads.add(head(*names, seed=n), n % 3 + 1, report(*names))
    for n in range(30):
        tuned(settings, n % 3 + 1)
    site.page("/tator/models")
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        page = site.page("/tator/models")
        times.append(time.perf_counter() - begun)
    assert page.count('name="version"') == 100
    assert sorted(times)[1] < 0.3, times
