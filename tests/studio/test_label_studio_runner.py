"""The runner of a private Label Studio: its environment, its process and its tokens, on the real server."""

from __future__ import annotations

import base64
import hashlib
import json
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from label_studio_sdk import LabelStudio as Client

from demo.environment import CONSTRAINTS, ENVIRONMENT, VERSION, ensure_environment
from demo.errors import LabelStudioError
from demo.label_studio import LabelStudio, StudioSettings
from demo.tokens import personal_access_token
from tator_ml.running.processes import free_port, stop_group
from tator_sdk.errors import TatorError
from tests.studio.server_process import alive, assert_it_ends_with, owned, wait_for

ROOT = Path(__file__).parents[2]
PORT = free_port(8290)

needs_label_studio = pytest.mark.skipif(
    not (ENVIRONMENT / "bin" / "label-studio").exists(),
    reason=f"Label Studio is not installed in {ENVIRONMENT}",
)


def quiet(_: str) -> None:
    """Takes a report and drops it."""


# The environment


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry with one package in it, called Label Studio; returns the pins that go with it."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    info = f"label_studio-{VERSION}.dist-info"
    files = {
        "label_studio_stand_in.py": "def main(): print('not really')\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: label-studio\nVersion: {VERSION}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\nlabel-studio = label_studio_stand_in:main\n",
    }
    with zipfile.ZipFile(folder / f"label_studio-{VERSION}-py3-none-any.whl", "w") as wheel:
        record = ""
        for name, text in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record += f"{name},sha256={digest},{len(text)}\n"
            wheel.writestr(name, text)
        wheel.writestr(f"{info}/RECORD", record + f"{info}/RECORD,,\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    pins = tmp_path / "pins.txt"
    pins.write_text(f"label-studio=={VERSION}\n")
    return pins


@pytest.mark.faults  # each makes a virtual environment
def test_environment_is_made_once_and_anew_where_it_is_half_finished(tmp_path: Path, wheels: Path) -> None:
    folder, reports = tmp_path / "environment", list[str]()
    (folder / "bin").mkdir(parents=True)  # as an interrupted venv leaves it
    (folder / "pyvenv.cfg").touch()
    (folder / "tator-begun").touch()
    ensure_environment(folder, reports.append, wheels)
    assert (folder / "bin" / "label-studio").exists()
    assert any("installing" in report for report in reports)

    reports.clear()
    ensure_environment(folder, reports.append, wheels)
    assert reports == []  # nothing to do

    wheels.write_text(wheels.read_text() + "something-else==1\n")  # new pins, which this environment meets too
    ensure_environment(folder, reports.append, wheels)
    assert reports == []


def test_environment_refuses_a_folder_with_other_things(tmp_path: Path, wheels: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").touch()
    with pytest.raises(LabelStudioError, match="not a virtual environment"):
        ensure_environment(tmp_path / "photos", quiet, wheels)
    assert (tmp_path / "photos" / "holiday.jpg").exists()


def test_environment_of_something_else_is_left_alone(tmp_path: Path, wheels: Path) -> None:
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "pyvenv.cfg").touch()
    with pytest.raises(LabelStudioError, match="made here for Label Studio"):
        ensure_environment(tmp_path / "venv", quiet, wheels)
    assert (tmp_path / "venv" / "bin").exists()


@pytest.mark.faults
def test_failed_install_says_so_and_leaves_no_marker(
    tmp_path: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nothing-here"))
    with pytest.raises(LabelStudioError, match="could not be installed"):
        ensure_environment(tmp_path / "environment", quiet, wheels)
    assert not (tmp_path / "environment" / "tator-complete").exists()


def test_constraints_name_versions_only() -> None:
    lines = CONSTRAINTS.read_text().split()
    assert f"label-studio=={VERSION}" in lines
    assert all(line.count("==") == 1 and not set(line) & set("/@:;") for line in lines)


# Ports and processes


def test_free_port_prefers_then_moves_on() -> None:
    port = free_port(PORT)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        other = free_port(port)
        assert other != port
    assert free_port(port) == port


def test_stop_group_ends_those_that_do_not_listen() -> None:
    ignores = "import signal as s, time; s.signal(s.SIGTERM, s.SIG_IGN); print(1, flush=True); time.sleep(99)"
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {ignores!r}]).wait()"
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    process.stdout.readline()
    child = psutil.Process(process.pid).children()[0].pid
    stop_group(process.pid, patience=0.3)
    assert not alive(child)
    assert process.wait(5) == -signal.SIGTERM


def test_account_is_made_up_once_and_private(tmp_path: Path) -> None:
    first = LabelStudio(StudioSettings(home=tmp_path)).account
    assert LabelStudio(StudioSettings(home=tmp_path)).account == first
    assert (tmp_path / "account.json").stat().st_mode & 0o077 == 0
    with pytest.raises(LabelStudioError, match="another password"):
        LabelStudio(StudioSettings(home=tmp_path, password="something else"))


def test_missing_environment_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(LabelStudioError, match="not installed"):
        LabelStudio(StudioSettings(home=tmp_path, environment=tmp_path / "none")).start()


def test_the_empty_database_is_made_once_for_all_homes(tmp_path: Path) -> None:
    """By a program that says how often it was asked: the real one takes a minute, and `make test` has asked it."""
    program = tmp_path / "environment" / "bin" / "label-studio"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\necho made >> "$0.log"; echo empty > "$3/label_studio.sqlite3"\n')
    program.chmod(0o755)
    for home in ("first", "second"):
        settings = StudioSettings(home=tmp_path / home, environment=tmp_path / "environment")
        LabelStudio(settings).prepare()
        assert (tmp_path / home / "data" / "label_studio.sqlite3").read_text() == "empty\n"
    assert program.with_name("label-studio.log").read_text() == "made\n"
    with pytest.raises(LabelStudioError, match="not installed"):
        LabelStudio(StudioSettings(home=tmp_path, environment=tmp_path / "none")).prepare()


# The real server

WATCHER = """
import os, sys
log = os.open({path!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def watch(event, arguments):
    if event == "socket.getaddrinfo": place = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple): place = arguments[1][0]
    else: return
    os.write(log, f"{{event}} {{place}}\\n".encode())
sys.addaudithook(watch)
os.write(log, b"watching\\n")
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("label-studio")


@pytest.fixture(scope="module")
def watched(home: Path) -> dict[str, str]:
    """Variables under which the server writes down every address it looks up or connects to."""
    folder = home.with_name(home.name + "-watcher")
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(WATCHER.format(path=str(folder / "calls.log")))
    return {"PYTHONPATH": str(folder)}


@pytest.fixture(scope="module")
def running(home: Path, watched: dict[str, str]) -> Iterator[LabelStudio]:
    """The first start, on an empty home."""
    settings = StudioSettings(home=home, port=PORT, document_root=ROOT / "tests", variables=watched)
    with LabelStudio(settings) as studio:
        yield studio


@pytest.mark.studio
@pytest.mark.timeout(900)  # the first start on a busy machine
@needs_label_studio
class TestRunning:
    """What the server of the first start does; one server for all of these."""

    def test_both_kinds_of_token(self, running: LabelStudio) -> None:
        account = running.account
        for key in (account.token, running.personal_access_token()):
            client = Client(base_url=running.url, api_key=key)
            assert client.users.whoami().email == account.username
            assert client.versions.get().release == VERSION

    def test_personal_access_token_is_kept_or_replaced(self, running: LabelStudio) -> None:
        account = running.account
        kept = running.personal_access_token()
        assert running.personal_access_token() == kept
        with pytest.raises(LabelStudioError, match="has a personal access token"):
            personal_access_token(running.url, account.username, account.password)
        new = personal_access_token(running.url, account.username, account.password, replace=True)
        refresh = running.url + "/api/token/refresh/"
        assert httpx.post(refresh, json={"refresh": kept}).status_code == 401
        access = httpx.post(refresh, json={"refresh": new}).json()["access"]
        whoami = running.url + "/api/current-user/whoami"
        assert httpx.get(whoami, headers={"Authorization": f"Bearer {access}"}).is_success
        assert running.personal_access_token() not in (kept, new)  # the kept one was revoked: a third

    def test_wrong_password_is_one_sentence(self, running: LabelStudio) -> None:
        with pytest.raises(LabelStudioError, match="refused the login"):
            personal_access_token(running.url, running.account.username, "not the password")

    def test_it_calls_nobody_outside(self, running: LabelStudio, watched: dict[str, str]) -> None:
        """Start-up, log-in, version pages, start page and the tips that come from GitHub."""
        client = httpx.Client(base_url=running.url, headers={"Authorization": f"Token {running.account.token}"})
        for page in ("/", "/user/login/", "/version/", "/api/version", "/projects/", "/heidi-tips"):
            client.get(page)
        running.personal_access_token()
        lines = (Path(watched["PYTHONPATH"]) / "calls.log").read_text().splitlines()
        assert "watching" in lines  # once for each Python that the server started: two where it lost its first port
        places = {line.split()[1] for line in lines if line != "watching"}
        assert places
        assert places <= {"127.0.0.1", "localhost", "::1", "0.0.0.0"}

    def test_pages_send_the_browser_nowhere_else(self, running: LabelStudio) -> None:
        page = httpx.get(running.url + "/user/login/").text
        assert "sentry" not in page
        assert "googletagmanager" not in page

    def test_account_is_not_on_the_command_line(self, running: LabelStudio) -> None:
        assert running.pid is not None
        words = " ".join(psutil.Process(running.pid).cmdline())
        assert running.account.password not in words
        assert running.account.token not in words

    def test_only_loopback_listens(self, running: LabelStudio) -> None:
        connections = psutil.Process(running.pid).net_connections("inet")
        listening = {found.laddr.ip for found in connections if found.status == psutil.CONN_LISTEN}
        assert listening == {"127.0.0.1"}


@pytest.fixture
def used_home(home: Path, running: LabelStudio) -> Path:
    """A home whose database exists, with no server on it."""
    running.stop()
    return home


@pytest.fixture
def owner(used_home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that runs the server."""
    with owned(StudioSettings(home=used_home, port=PORT)) as process:
        yield process


@pytest.mark.studio
@pytest.mark.timeout(900)  # the first start on a busy machine
@needs_label_studio
class TestStartingAndStopping:
    """Starts and stops on a home that exists."""

    @pytest.mark.faults
    def test_again_on_the_same_home_where_the_port_is_taken(self, used_home: Path) -> None:
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(("127.0.0.1", PORT))
            taken.listen()
            reports: list[str] = []
            studio = LabelStudio(StudioSettings(home=used_home, port=PORT))
            studio.start(reports.append)
            pid = studio.pid
            try:
                assert studio.url != f"http://127.0.0.1:{PORT}"
                assert httpx.get(studio.url + "/health").json() == {"status": "UP"}
                assert any("starting" in report for report in reports)
                token = {"Authorization": f"Token {studio.account.token}"}
                assert httpx.get(studio.url + "/api/current-user/whoami", headers=token).is_success
            finally:
                studio.stop()
        assert pid is not None
        assert not psutil.pid_exists(pid)  # collected as well: no zombie
        assert not (used_home / "process.json").exists()
        studio.stop()  # a second stop does nothing

    @pytest.mark.faults
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
    def test_owner_is_interrupted(self, owner: subprocess.Popen[bytes], number: signal.Signals) -> None:
        assert_it_ends_with(owner, number)

    @pytest.mark.faults
    def test_owner_is_interrupted_while_it_waits(self, used_home: Path, owner: subprocess.Popen[bytes]) -> None:
        assert wait_for((used_home / "process.json").exists)
        pid = json.loads((used_home / "process.json").read_text())["pid"]
        owner.send_signal(signal.SIGINT)
        assert owner.wait(30) != 0
        assert not alive(pid)

    @pytest.mark.faults
    def test_owner_crashes(self, used_home: Path, owner: subprocess.Popen[bytes]) -> None:
        assert owner.stdout is not None
        pid, url = owner.stdout.readline().decode().split()
        with pytest.raises(TatorError, match=f"started by process {owner.pid}"):
            LabelStudio(StudioSettings(home=used_home, port=PORT)).start()
        owner.kill()
        owner.wait(5)
        assert httpx.get(url + "/health").is_success  # left behind
        with LabelStudio(StudioSettings(home=used_home, port=PORT)) as studio:
            assert not alive(int(pid))
            assert studio.url == url

    def test_server_dies_while_starting(self, used_home: Path) -> None:
        studio = LabelStudio(StudioSettings(home=used_home, port=PORT, variables={"DJANGO_DB": "no such thing"}))
        with pytest.raises(LabelStudioError, match=r"(?s)ended while starting.*no such thing"):
            studio.start()
        assert studio.pid is None
