"""Model files from outside: nothing in them is executed, and what is damaged or hostile has a sentence."""

from __future__ import annotations

import json
import pickle
import struct
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr

from tator_ml.engine.crops import CropRecipe
from tator_ml.engine.head import METADATA_FILE, WEIGHTS_FILE, Head, HeadError
from tator_ml.learning.stores import head_registry
from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings
from tests.dashboard.conftest import Site, build_site, close_site
from tests.dashboard.test_access import PASSWORD, TOKEN, Members

pytestmark = pytest.mark.attack  # together they take their time


class Trap:
    """Makes a folder where it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __reduce__(self) -> Any:
        return Path.mkdir, (self._folder,)


def small_head() -> Head:
    return Head(("Car",), np.eye(1, dtype=np.float32), np.zeros(1, np.float32), 1.0, 0.5, 0.1, "s", CropRecipe(), "h")


@pytest.mark.parametrize("name", ["head.pkl", "head.pickle", "head.joblib", "head.zip", "head.pth", "head.npz", "head"])
def test_a_pickled_head_is_never_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(TatorError):
        head_registry(Settings(home=tmp_path)).add_archive(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_pickles_inside_an_archive_are_not_read(tmp_path: Path, site: Site) -> None:
    trap = pickle.dumps(Trap(tmp_path / "sprung"))
    for entries in (
        {WEIGHTS_FILE: trap, METADATA_FILE: trap}, {**small_head().files(), WEIGHTS_FILE: trap},
        {**small_head().files(), "report.json": trap}, {**small_head().files(), "../evil": trap, "/evil": trap},
        {METADATA_FILE: b"[" * 10**5, WEIGHTS_FILE: b""}, {"adapter/adapter_model.bin": trap, "metadata.json": b"{}"},
    ):  # fmt: skip
        path = tmp_path / "head.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in entries.items():
                archive.writestr(name, data)
        answer = site.client.post(
            "/tator/models/add",
            data={"project": "1", "archive": (path.open("rb"), "../../x.zip")},
            follow_redirects=True,
        )
        assert answer.status_code == 200
    assert not (tmp_path / "sprung").exists() and not list(tmp_path.parent.glob("evil*"))
    assert not list(site.settings.home.rglob("*evil*"))


def test_a_member_brings_no_encoder_along(settings: Settings, members: Members, tmp_path: Path) -> None:
    """A head names its encoder, which the engine would fetch from a hub, or load from any folder of the machine."""
    made = build_site(settings.model_copy(update={"password": SecretStr(PASSWORD)}))
    try:
        for encoder, kept in (("transformers:evil/model", 0), ("timm:hf_hub:evil/x", 0), ("starter", 1)):
            files = replace(small_head(), encoder_name=encoder).files()
            with zipfile.ZipFile(tmp_path / "head.zip", "w") as archive:
                for name, data in files.items():
                    archive.writestr(name, data)
            for who in ({"token": TOKEN}, {"as": "administrator", "username": "tator", "password": PASSWORD}):
                assert made.client.post("/tator/sign-in", data=who).status_code == 303
                before = len(head_registry(made.settings).list())
                with (tmp_path / "head.zip").open("rb") as archive_file:
                    made.client.post("/tator/models/add", data={"project": "1", "archive": (archive_file, "h.zip")})
                taken = len(head_registry(made.settings).list()) - before
                assert taken == (1 if "as" in who else kept), (encoder, who)
    finally:
        close_site(made)


def header(about: object, length: int | None = None) -> bytes:
    text = about if isinstance(about, bytes) else json.dumps(about).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text


HEADERS = {
    "long": header(b"{}", 2**63), "longer than the file": header(b"{}", 10**6), "huge": header(b"{}", 10**8),
    "no JSON": header(b"\xff" * 20), "deep": header(b"[" * 10**5),
    "beyond the end": header({"weight": {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 2**40]}}),
    "negative": header({"weight": {"dtype": "F32", "shape": [-1, 1], "data_offsets": [0, 4]}}),
    "overflow": header({"weight": {"dtype": "F32", "shape": [2**62, 8], "data_offsets": [0, 4]}}) + b"\0" * 4,
    "overlap": header({"weight": {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]},
                       "bias": {"dtype": "F32", "shape": [1], "data_offsets": [2, 6]}}) + b"\0" * 8,
    "type": header({"weight": {"dtype": "object", "shape": [1, 1], "data_offsets": [0, 4]}}) + b"\0" * 4,
    "nan": header({"weight": {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]},
                   "bias": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}) + b"\xff" * 8,
    "numpy": b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,)}" + b" " * 50,
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
def test_hostile_weights_of_a_head(name: str) -> None:
    import hashlib

    about = json.loads(small_head().files()[METADATA_FILE])
    about["weights_sha256"] = hashlib.sha256(HEADERS[name]).hexdigest()
    began = time.monotonic()
    with pytest.raises(HeadError):
        Head.of_files({METADATA_FILE: json.dumps(about).encode(), WEIGHTS_FILE: HEADERS[name]}, "here")
    assert time.monotonic() - began < 5


def test_code_beside_a_models_weights_is_not_run(tmp_path: Path) -> None:
    """``auto_map`` names a module of the repository, which transformers imports where ``trust_remote_code`` is set."""
    from tator_ml.engine.encoders.transformers_model import EncoderError, load_folder

    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "evil.py").write_text(f"import pathlib; pathlib.Path({str(tmp_path / 'sprung')!r}).mkdir()\n")
    auto_map = dict.fromkeys(("AutoConfig", "AutoModel", "AutoProcessor", "AutoImageProcessor"), "evil.Evil")
    (folder / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": auto_map}))
    (folder / "preprocessor_config.json").write_text(json.dumps({"auto_map": auto_map}))
    (folder / "model.safetensors").write_bytes(header({}))
    with pytest.raises(EncoderError):
        load_folder(folder)
    assert not (tmp_path / "sprung").exists()


def test_every_loader_says_that_no_code_is_trusted() -> None:
    """Of transformers' ``from_pretrained`` each call says so itself; of torch's, each takes weights only."""
    import ast

    root = Path(__file__).parents[2]
    files = [path for package in ("tator_ml", "training") for path in (root / package).rglob("*.py")]
    found = 0
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            words = {one.arg for one in node.keywords}
            where = (path.name, node.lineno)
            if ast.unparse(node.func) == "torch.load":
                found += 1
                assert "weights_only" in words, where
            if node.func.attr == "from_pretrained" and "Auto" in ast.unparse(node.func):
                found += 1
                assert "trust_remote_code" in words, where
            if ast.unparse(node.func) in {"np.load", "numpy.load"}:
                assert "allow_pickle" not in words, where  # numpy's own default is not to
    assert found >= 8
