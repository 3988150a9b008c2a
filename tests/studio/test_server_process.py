"""Another server takes the port while Label Studio starts: a program that says so stands in for it."""

from __future__ import annotations

import sys
from pathlib import Path

import httpx
import pytest

from demo.errors import LabelStudioError
from demo.label_studio import LabelStudio, StudioSettings
from tator_ml.processes import free_port

STAND_IN = """#!{python}
import http.server, pathlib, sys
asked = sys.argv[sys.argv.index("--port") + 1]
tries = pathlib.Path("tries")
tries.write_text((tries.read_text() if tries.exists() else "") + asked + " ")
if len(tries.read_text().split()) <= {losses}:
    sys.exit("Error: That port is already in use.")
class Up(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(asked)), Up).serve_forever()
"""


@pytest.mark.parametrize(("losses", "starts"), [(2, True), (99, False)])
def test_a_port_lost_between_look_and_bind_is_followed_by_the_next(tmp_path: Path, losses: int, starts: bool) -> None:
    program = tmp_path / "environment" / "bin" / "label-studio"
    program.parent.mkdir(parents=True)
    program.write_text(STAND_IN.format(python=sys.executable, losses=losses))
    program.chmod(0o755)
    home = tmp_path / "home"
    (home / "data").mkdir(parents=True)
    (home / "data" / "label_studio.sqlite3").touch()
    studio = LabelStudio(StudioSettings(home=home, environment=program.parents[1], port=free_port(8290)))
    try:
        if starts:
            studio.start()
            assert httpx.get(studio.url + "/health", trust_env=False).is_success
        else:
            with pytest.raises(LabelStudioError, match="already in use"):
                studio.start()
            assert studio.pid is None
    finally:
        studio.stop()
    tried = (home / "tries").read_text().split()
    assert len(tried) == len(set(tried)) == (3 if starts else 5)
