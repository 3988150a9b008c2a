"""The web process under gunicorn: one process, many threads, since nothing in it computes for long."""

from __future__ import annotations

import threading
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication

from tator_ml.services import build_services
from tator_ml.web.app import create_app
from tator_ml.web.patience import PatientWorker
from tator_sdk.regions import load_brush_codec
from tator_sdk.settings import Settings, bracketed


class _Server(BaseApplication):  # type: ignore[misc]
    """Gunicorn configured by our settings instead of its command line."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._app: Flask | None = None  # of the worker's process alone
        super().__init__()

    def load_config(self) -> None:
        settings = self._settings
        options: dict[str, Any] = {
            "bind": f"{bracketed(settings.host)}:{settings.port}",
            "workers": 1,  # pending prompts and notices live in this process
            "threads": settings.web_threads + settings.dashboard_streams,  # an open page's stream sleeps in its own
            "worker_class": PatientWorker,
            "timeout": 120,
            "graceful_timeout": 5,
            "keepalive": 30,
            "secure_scheme_headers": {},  # forwarded headers are read in one place, where a setting says so
            "control_socket_disable": True,
            "sendfile": False,  # it would wait for a reader for any time; see patience.py
            "worker_exit": lambda _arbiter, _worker: self._end(),
        }
        for name, value in options.items():
            self.cfg.set(name, value)  # which refuses a name that this gunicorn does not know

    def load(self) -> Flask:
        app = create_app(self._settings, build_services(self._settings))
        threading.Thread(target=load_brush_codec, name="tator-brush", daemon=True).start()
        self._app = app
        return app

    def _end(self) -> None:
        """End what the worker began; the process that starts workers has nothing to end."""
        if self._app is not None:
            self._app.extensions["tator_watch"].stop()
            self._app.extensions["tator"].close()


def serve(settings: Settings) -> None:
    """Serve until the process is told to stop."""
    _Server(settings).run()
