"""The adapter to the ``label-studio-ml`` library, over a stand-in with the library's own contract.

The library is not on the registry. The stand-in keeps what matters of its 2.x server: it insists on a
subclass, builds the class for every request, takes ``context`` out of ``params`` and passes the rest
on, asks its cache for the model version, and handles events by their singular names.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, jsonify, request

from tests.wire.conftest import TRUTH, Running, near


def stand_in() -> types.ModuleType:
    cache: dict[tuple[str, str], str] = {}

    class LabelStudioMLBase:
        def __init__(self, project_id: str | None = None, label_config: str | None = None) -> None:
            self.project_id = project_id or ""
            if label_config is not None:
                self.set("label_config", label_config)
            self.setup()

        def setup(self) -> None: ...

        def get(self, key: str) -> str | None:
            return cache.get((self.project_id, key))

        def set(self, key: str, value: str) -> None:
            cache[self.project_id, key] = value

        @property
        def label_config(self) -> str | None:
            return self.get("label_config")

    def init_app(model_class: Any) -> Flask:
        if not issubclass(model_class, LabelStudioMLBase):
            raise ValueError("not a subclass")
        app = Flask("library")

        @app.post("/predict")
        def predict() -> Any:
            data = request.json
            params = data.get("params", {})
            context = params.pop("context", {})
            model = model_class(project_id=str(data["project"]).split(".")[0], label_config=data["label_config"])
            return jsonify(results=model.predict(data["tasks"], context=context, **params))

        @app.post("/setup")
        def setup() -> Any:
            data = request.json
            model = model_class(project_id=data["project"].split(".")[0], label_config=data["schema"])
            return jsonify(model_version=model.get("model_version"))

        @app.post("/webhook")
        def webhook() -> Any:
            data = request.json
            event = data.pop("action")
            model = model_class(str(data["project"]["id"]), label_config=data["project"]["label_config"])
            return jsonify(result=model.fit(event, data), status="ok")

        return app

    package, module = types.ModuleType("label_studio_ml"), types.ModuleType("label_studio_ml.model")
    module.LabelStudioMLBase = LabelStudioMLBase  # type: ignore[attr-defined]
    package.init_app = init_app  # type: ignore[attr-defined]
    package.model = module  # type: ignore[attr-defined]
    return package


@pytest.fixture
def library(running: Running, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    package = stand_in()
    monkeypatch.setitem(sys.modules, "label_studio_ml", package)
    monkeypatch.setitem(sys.modules, "label_studio_ml.model", package.model)
    monkeypatch.delitem(sys.modules, "tator_ml.label_studio_ml", raising=False)
    from tator_ml import label_studio_ml as adapter

    monkeypatch.setattr(adapter, "shared_services", lambda: running.services)
    yield package.init_app(adapter.TatorModel).test_client()
    sys.modules.pop("tator_ml.label_studio_ml", None)


def test_the_library_serves_tator(library: Any, payload: Any) -> None:
    setup = library.post("/setup", json=payload("setup")["body"])
    assert setup.json["model_version"] == "bright-1+toy-head-1"
    body = payload("predict_interactive_rectangle_ui")["body"]
    drawn = body["params"]["context"]["result"][0]
    drawn["value"].update(x=28.0, y=23.0, width=24.0, height=34.0)
    (result,) = library.post("/predict", json=body).json["results"]
    assert result["result"][0]["id"] == drawn["id"] and near(result["result"][0]["value"], TRUTH)
    assert library.post("/predict", json=payload("predict_batch")["body"]).json["results"] == [[]] * 3
    webhook = payload("webhook_START_TRAINING")["body"]
    assert library.post("/webhook", json=webhook).json["status"] == "ok"
