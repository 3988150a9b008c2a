"""The registry of heads: whole or not at all, activated at once, taken back step by step."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tator_ml.engine.head import METADATA_FILE, WEIGHTS_FILE, HeadDamaged, HeadError
from tator_ml.learning import registry as registry_module
from tator_ml.learning.registry import REPORT_FILE, HeadRegistry, RegistryError
from tator_ml.projects import Projects
from tests.learning.material import DIM, head_of

ROOT = Path(__file__).parents[2]


@pytest.fixture
def registry(tmp_path: Path) -> HeadRegistry:
    return HeadRegistry(tmp_path / "heads", Projects(tmp_path / "projects"))


def test_a_head_is_kept_with_its_report_and_examples(registry: HeadRegistry) -> None:
    head = head_of(("Zebra", "Ant", "Mule"), familiarity=0.3, centers=np.eye(3, DIM, dtype=np.float32))
    entry = registry.add(head, 3, {"metrics": {"f1": 0.5}}, [{"image": "a", "held_out": True}])
    assert entry.version.startswith("head-p3-1-") and entry.project == 3
    found = registry.get(entry.version)
    again = found.head()
    assert again.classes == ("Zebra", "Ant", "Mule") and again.version == entry.version
    assert again.familiarity == 0.3 and again.centers is not None and (again.weight == head.weight).all()
    assert found.report["metrics"] == {"f1": 0.5} and found.examples() == [{"image": "a", "held_out": True}]
    assert registry.add(head, None, {}).version.startswith("head-1-")
    second = registry.add(head, 3, {})
    assert second.version.startswith("head-p3-2-")
    assert [one.version for one in registry.list(3)] == [second.version, entry.version]
    assert len(registry.list()) == 3 and registry.list(4) == []
    assert not [path for path in (entry.folder.parent).iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    "report", ['{"created": "yesterday"}', '{"created": [1]}', '{"created": 1%s}' % ("0" * 400), "[" * 10**5, "{", "7"]
)
def test_a_bad_report_spoils_no_list(registry: HeadRegistry, report: str) -> None:
    bad, good = registry.add(head_of(), 3, {}), registry.add(head_of(seed=1), 3, {})
    (bad.folder / REPORT_FILE).write_text(report)
    assert {one.version for one in registry.list()} == {bad.version, good.version}
    assert registry.get(bad.version).created > 10**9 and registry.get(bad.version).head().classes


def test_a_head_is_found_by_how_it_begins(registry: HeadRegistry) -> None:
    one, two = registry.add(head_of(), 3, {}), registry.add(head_of(seed=1), 4, {})
    assert registry.get("head-p3").version == one.version
    with pytest.raises(RegistryError, match=two.version):
        registry.get("head-p")
    for wrong in ("head-p9", "../projects", "/etc", ".part-x"):
        with pytest.raises(RegistryError, match="no head"):
            registry.get(wrong)


def test_an_activation_is_seen_at_once_by_others(registry: HeadRegistry, tmp_path: Path) -> None:
    entry = registry.add(head_of(), 3, {})
    others = HeadRegistry(tmp_path / "heads", Projects(tmp_path / "projects"))
    assert others.active(3) is None
    registry.activate(3, "head-p3-1", "gate", {"candidate": 0.9})
    active = others.active(3)
    assert active is not None and active.version == entry.version
    assert set(others.files(entry.version)) == {METADATA_FILE, WEIGHTS_FILE}
    assert Projects(tmp_path / "projects").activations(3)[0].figures == {"candidate": 0.9}


def test_a_damaged_head_replaces_none_that_works(registry: HeadRegistry) -> None:
    good, bad = registry.add(head_of(), 3, {}), registry.add(head_of(seed=1), 3, {})
    registry.activate(3, good.version, "person")
    (bad.folder / WEIGHTS_FILE).write_bytes(b"\x00" * 100)
    with pytest.raises(HeadError):
        registry.activate(3, bad.version, "person")
    active = registry.active(3)
    assert active is not None and active.version == good.version


@pytest.mark.parametrize("report", ["", "[1]", "7", '"text"', "{"])
def test_a_head_without_a_readable_report_stays_usable(registry: HeadRegistry, report: str) -> None:
    entry = registry.add(head_of(), 3, {})
    (entry.folder / REPORT_FILE).write_text(report)
    assert registry.list()[0].version == entry.version and registry.get(entry.version).head().classes


def versions(registry: HeadRegistry, count: int) -> list[str]:
    return [registry.add(head_of(seed=number), 3, {}).version for number in range(count)]


def test_rollbacks_go_back_step_by_step(registry: HeadRegistry) -> None:
    a, b, c = versions(registry, 3)
    for version in (a, b, c):
        registry.activate(3, version, "gate")
    back = [registry.rollback(3) for _ in range(3)]
    assert [entry.version if entry else None for entry in back] == [b, a, None]
    with pytest.raises(RegistryError, match="no earlier head"):
        registry.rollback(3)


def test_after_a_rollback_and_a_new_head_the_rejected_one_is_skipped(registry: HeadRegistry) -> None:
    a, b, c = versions(registry, 3)
    registry.activate(3, a, "gate")
    registry.activate(3, b, "gate")
    registry.rollback(3)
    registry.activate(3, c, "gate")
    entry = registry.rollback(3)
    assert entry is not None and entry.version == a


def test_a_head_activated_twice_is_left_by_one_rollback(registry: HeadRegistry) -> None:
    a, b = versions(registry, 2)
    for version in (a, b, b):
        registry.activate(3, version, "person")
    entry = registry.rollback(3)
    assert entry is not None and entry.version == a


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from("012RN"), max_size=14))
def test_rollback_is_undo(tmp_path_factory: Any, steps: list[str]) -> None:
    folder = tmp_path_factory.mktemp("registry")
    projects = Projects(folder / "projects")
    registry = HeadRegistry(folder / "heads", projects)
    heads = versions(registry, 3)
    stack: list[str | None] = [None]
    for step in steps:
        if step == "R" and len(stack) == 1:
            with pytest.raises(RegistryError):
                registry.rollback(3)
        elif step == "R":
            stack.pop()
            registry.rollback(3)
        else:
            head = None if step == "N" else heads[int(step)]
            projects.activate(3, head, "person")  # N: the default head is chosen
            if head != stack[-1]:
                stack.append(head)
        assert projects.get(3).head == stack[-1]


def test_processes_that_add_at_once_get_versions_of_their_own(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.learning.test_registry import *\n"
        "r = HeadRegistry(Path(sys.argv[1]) / 'heads', Projects(Path(sys.argv[1]) / 'projects'))\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "for n in range(15): print(r.add(head_of(), 3, {'n': n}, [{'by': sys.argv[2]}]).version, flush=True)"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), name],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for name in "ab"
    ]  # fmt: skip
    for process in running:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    made = [process.communicate(timeout=60)[0].split() for process in running]
    assert all(len(one) == 15 for one in made) and len({*made[0], *made[1]}) == 30
    registry = HeadRegistry(tmp_path / "heads", Projects(tmp_path / "projects"))
    assert len(registry.list()) == 30
    for name, one in zip("ab", made, strict=True):
        for number, version in enumerate(one):
            entry = registry.get(version)
            assert entry.report["n"] == number and entry.examples() == [{"by": name}] and entry.head()
    assert not [path for path in (tmp_path / "heads").iterdir() if path.name.startswith(".part")]


# Out and in again


def test_what_is_exported_is_taken_in_elsewhere(registry: HeadRegistry, tmp_path: Path) -> None:
    entry = registry.add(head_of(("Zebra", "Ant", "Mule")), 3, {"metrics": {"f1": 0.5}}, [{"task": 1}])
    archive = registry.export(entry.version, tmp_path / "out" / "head.zip")
    assert b"examples" not in b"".join(name.encode() for name in zipfile.ZipFile(archive).namelist())
    with pytest.raises(RegistryError, match="exists already"):
        registry.export(entry.version, archive)
    elsewhere = HeadRegistry(tmp_path / "other", Projects(tmp_path / "projects2"))
    for source in (archive, entry.folder):
        taken = elsewhere.add_archive(source, 9)
        head = taken.head()
        assert head.classes == ("Zebra", "Ant", "Mule") and (head.weight == entry.head().weight).all()
        assert taken.project == 9 and taken.report["imported_version"] == entry.version
        assert taken.version != entry.version and taken.report["metrics"] == {"f1": 0.5}


def archive(path: Path, **changes: Any) -> Path:
    """A head's archive with files replaced, added, or left out (None)."""
    files: dict[str, Any] = {**head_of().files(), **{name.replace("__", "."): data for name, data in changes.items()}}
    with zipfile.ZipFile(path, "w") as zipped:
        for name, data in files.items():
            if data is not None:
                zipped.writestr(name, data)
    return path


def test_no_entry_leaves_its_folder(registry: HeadRegistry, tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", **{"../../evil.txt": b"x", "/tmp/evil": b"x", "sub/../../x": b"x"})
    before = {one for one in tmp_path.rglob("*") if one.is_file()}
    entry = registry.add_archive(path)
    new = {one for one in tmp_path.rglob("*") if one.is_file()} - before
    assert new and all(one.parent == entry.folder for one in new) and entry.head()
    only = tmp_path / "only.zip"
    with zipfile.ZipFile(only, "w") as zipped:
        for name, data in head_of().files().items():
            zipped.writestr(f"../{name}", data)
    with pytest.raises(HeadDamaged):
        registry.add_archive(only)


def test_an_archive_that_claims_too_much_is_not_unpacked(
    registry: HeadRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_module, "MAX_ARCHIVE_BYTES", 10**6)
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr(WEIGHTS_FILE, bytes(2 * 10**6))
        zipped.writestr(METADATA_FILE, b"{}")
    read: list[Any] = []
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *found: read.append(found))
    with pytest.raises(RegistryError, match="more than a head can be"):
        registry.add_archive(path)
    assert not read


@pytest.mark.parametrize("name", ["model.pkl", "model.pickle", "model.joblib"])
def test_a_pickle_is_never_opened(registry: HeadRegistry, tmp_path: Path, name: str) -> None:
    with pytest.raises(RegistryError, match="never opened"):
        registry.add_archive(tmp_path / name)  # not even looked for


class Bomb:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("/tmp/tator-pickle-was-run"),)


def damaged(kind: str, path: Path) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, data in head_of().files().items():
            zipped.writestr(name, data)
    data = bytearray(whole.getvalue())
    with zipfile.ZipFile(io.BytesIO(data)) as zipped:
        info = zipped.getinfo(WEIGHTS_FILE)
    content = info.header_offset + 30 + len(info.filename)
    if kind == "damaged data":
        data[content : content + 50] = b"\xff" * 50
    elif kind == "cut":
        del data[len(data) // 2 :]
    elif kind == "encrypted":
        central = data.index(b"PK\x01\x02")
        data[6] |= 1
        data[central + 8] |= 1
    elif kind == "unknown method":
        central = data.index(b"PK\x01\x02")
        data[8] = data[central + 10] = 97
    elif kind == "pickle":
        return pickle.dumps(Bomb())
    elif kind == "text":
        return b"no archive"
    return bytes(data)


@pytest.mark.parametrize("kind", ["damaged data", "cut", "encrypted", "unknown method", "pickle", "text"])
def test_a_damaged_archive_is_refused_in_a_sentence(registry: HeadRegistry, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "head.zip"
    path.write_bytes(damaged(kind, path))
    with pytest.raises(RegistryError, match="not an archive"):
        registry.add_archive(path)
    assert registry.list() == [] and not Path("/tmp/tator-pickle-was-run").exists()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"head__json": None}, HeadDamaged),
        ({"head__json": b"[]"}, HeadDamaged),
        ({"head__json": b"[" * 100_000}, HeadDamaged),
        ({"head__safetensors": b"\x80\x04N."}, HeadDamaged),
        ({"report__json": b"[1, 2]"}, RegistryError),
        ({"report__json": b"{"}, RegistryError),
        ({"report__json": b'{"metrics": "good"}'}, RegistryError),
        ({"report__json": b"[" * 100_000}, RegistryError),
    ],
)
def test_a_damaged_head_is_refused_in_a_sentence(
    registry: HeadRegistry, tmp_path: Path, changes: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        registry.add_archive(archive(tmp_path / "head.zip", **changes))
    assert registry.list() == []


def test_what_is_not_there_is_said(registry: HeadRegistry, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="no file"):
        registry.add_archive(tmp_path / "nowhere.zip")
    (tmp_path / "folder").mkdir()
    with pytest.raises(HeadError):
        registry.add_archive(tmp_path / "folder")


def test_a_report_cannot_give_itself_out_as_another(registry: HeadRegistry, tmp_path: Path) -> None:
    said = json.dumps({"version": "head-p1-1-ffffff", "project": 1, "created": "never", "metrics": None}).encode()
    entry = registry.add_archive(archive(tmp_path / "head.zip", report__json=said), 5)
    found = registry.get(entry.version)
    assert found.project == 5 and found.report["version"] == entry.version and found.created > 10**9
