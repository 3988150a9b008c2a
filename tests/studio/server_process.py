"""Label Studio's process in the hands of another, and a program that stands in for it where only that matters."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from demo.label_studio import StudioSettings
from tator_ml.running.processes import free_port, stop_group

ROOT = Path(__file__).parents[2]

PROGRAM = """#!{python}
import http.server, pathlib, sys, time
asked = sys.argv[sys.argv.index("--port") + 1]
tries = pathlib.Path("tries")
tries.write_text((tries.read_text() if tries.exists() else "") + asked + " ")
if len(tries.read_text().split()) <= {losses}:
    sys.exit("Error: That port is already in use.")
class Up(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
time.sleep({seconds})
http.server.HTTPServer(("127.0.0.1", int(asked)), Up).serve_forever()
"""


def stand_in(folder: Path, losses: int = 0, seconds: float = 0.0) -> StudioSettings:
    """Settings of a Label Studio that only listens, on a home whose database exists.

    Args:
        folder: of its home and of its environment.
        losses: how often it finds that another server took its port.
        seconds: that pass before it listens.
    """
    program = folder / "environment" / "bin" / "label-studio"
    program.parent.mkdir(parents=True)
    program.write_text(PROGRAM.format(python=sys.executable, losses=losses, seconds=seconds))
    program.chmod(0o755)
    home = folder / "home"
    (home / "data").mkdir(parents=True)
    (home / "data" / "label_studio.sqlite3").touch()
    return StudioSettings(home=home, environment=program.parents[1], port=free_port(8390))


OWNER = """
import signal, sys
from pathlib import Path
from demo.label_studio import LabelStudio, StudioSettings
from tator_ml.running.processes import termination_as_exit
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
with termination_as_exit():
    home, environment, port = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    studio = LabelStudio(StudioSettings(home=home, environment=environment, port=port))
    with studio:
        print(studio.pid, studio.url, flush=True)
        signal.pause()
"""


@contextmanager
def owned(settings: StudioSettings) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that runs the server, and tells its process id and address when it is up."""
    command = [sys.executable, "-c", OWNER, str(settings.home), str(settings.environment), str(settings.port)]
    pid_file = settings.home / "process.json"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT) as process:
        try:
            yield process
        finally:
            if pid_file.exists():
                stop_group(json.loads(pid_file.read_text())["pid"])
            process.kill()


def assert_it_ends_with(owner: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """The server does, where its owner gets a signal."""
    assert owner.stdout is not None
    pid = int(owner.stdout.readline().split()[0])
    owner.send_signal(number)
    assert owner.wait(30) != 0
    assert not alive(pid)


def alive(pid: int) -> bool:
    return bool(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
