"""A private Label Studio: its own environment, home folder, account and process, on loopback only.

The demo and the tests run the real server through this module::

    ensure_environment(Path(".venv-label-studio"), print)
    with LabelStudio(StudioSettings(home=Path(".tator/label-studio"))) as studio:
        print(studio.url, studio.account.username, studio.account.password)
        client = LabelStudio_sdk(base_url=studio.url, api_key=studio.personal_access_token())

Nothing is written outside the home folder, and the server makes no call to the outside.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Self

import httpx
import psutil

VERSION = "1.23.2"
CONSTRAINTS = Path(__file__).resolve().parent.parent / "constraints-label-studio.txt"
ENVIRONMENT = CONSTRAINTS.parent / ".venv-label-studio"
LOOPBACK = "127.0.0.1"

Report = Callable[[str], None]
"""Takes one short sentence about what is happening."""

_INHERITED = (
    "PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_FILE",
)  # fmt: skip
"""What the server sees of our environment: Label Studio reads bare names too (HOST, DEBUG, PASSWORD)."""

_MARKER = "tator-complete"
_DATABASE = "label_studio.sqlite3"
_QUIET = ("--disable-pip-version-check", "--progress-bar=off")
_NOWHERE = f"http://{LOOPBACK}:9"  # the discard port: refused at once


class LabelStudioError(Exception):
    """Label Studio could not be installed, started or logged in to; the message is for a person."""


@dataclass(frozen=True)
class Account:
    """The one account of a private Label Studio; ``token`` is its legacy API token."""

    username: str
    password: str
    token: str


@dataclass(frozen=True)
class StudioSettings:
    """Where a private Label Studio keeps its things and how it is reached.

    Attributes:
        home: Folder for database, uploads, log and account; made when missing.
        port: Preferred port; the next free one is taken where it is in use.
        document_root: Folder below which ``/data/local-files/?d=...`` may serve files, none when None. The
            project needs a local storage row for a folder below it as well.
        username: E-mail address of the account made at the first start. This and the next two are made up
            when None, and remembered in the home folder.
        password: Its password.
        token: Its legacy API token, 6 to 40 characters.
        environment: Virtual environment that Label Studio is installed in.
        variables: Further environment variables for the server; they win over ours.
    """

    home: Path
    port: int = 8080
    document_root: Path | None = None
    username: str | None = None
    password: str | None = None
    token: str | None = None
    environment: Path = ENVIRONMENT
    variables: Mapping[str, str] = field(default_factory=dict)


# The environment


def ensure_environment(folder: Path, report: Report, constraints: Path = CONSTRAINTS) -> None:
    """Install Label Studio into the virtual environment ``folder``, unless it is there already.

    A marker is written last, so an install that was interrupted is done again from the beginning. An
    environment without a marker that holds just what the pins say is accepted as it is.

    Raises:
        LabelStudioError: The folder is something else, or the install failed.
    """
    marker = folder / _MARKER
    wanted = hashlib.sha256(constraints.read_bytes()).hexdigest()
    if marker.exists() and marker.read_text().strip() == wanted:
        return
    if not _pins_hold(folder, constraints):
        if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").exists():
            raise LabelStudioError(f"{folder} is not a virtual environment: give another folder.")
        shutil.rmtree(folder, ignore_errors=True)
        report(f"Making {folder} for Label Studio {VERSION}; this takes a minute or two.")
        _run_step([sys.executable, "-m", "venv", str(folder)], report)
        install = [str(folder / "bin" / "python"), "-m", "pip", "install", "--no-input", *_QUIET]
        _run_step([*install, f"label-studio=={VERSION}", "-c", str(constraints)], report)
        if not _pins_hold(folder, constraints):
            raise LabelStudioError(f"Label Studio in {folder} is not what {constraints.name} says.")
    marker.write_text(wanted + "\n")


def _pins_hold(folder: Path, constraints: Path) -> bool:
    """Whether all that is installed in ``folder`` is as pinned, Label Studio among it."""
    python = folder / "bin" / "python"
    if not (python.exists() and (folder / "bin" / "label-studio").exists()):
        return False
    command = [str(python), "-m", "pip", "freeze", _QUIET[0]]
    installed = subprocess.run(command, capture_output=True, text=True, check=False)
    pins = set(constraints.read_text().split())
    return installed.returncode == 0 and {f"label-studio=={VERSION}"} <= set(installed.stdout.split()) <= pins


def _run_step(command: list[str], report: Report) -> None:
    output: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            for line in process.stdout or ():
                output.append(line.strip())
                if found := re.match(r"(Collecting|Installing|Building wheel for) (\S+)", output[-1]):
                    report(f"Label Studio: {found[1].lower()} {found[2]}")
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        reason = next((line for line in reversed(output) if line.startswith("ERROR")), "\n".join(output[-5:]))
        raise LabelStudioError(f"Label Studio could not be installed, is a registry reachable? {reason}")


# The process


def free_port(preferred: int, host: str = LOOPBACK) -> int:
    """Return ``preferred``, or the next port above it on which nothing listens, or any free one."""
    for port in (*range(preferred, min(preferred + 100, 65536)), 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((host, port))
                return int(probe.getsockname()[1])
    raise LabelStudioError(f"No free port on {host}.")


@contextlib.contextmanager
def termination_as_exit() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into SystemExit, so that ``with`` blocks inside clean up. Main thread only."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_group(leader: int, patience: float = 5.0) -> None:
    """End the process group of ``leader``: SIGTERM, after ``patience`` seconds SIGKILL. None of it is left.

    Processes that ended and that their parent has not collected yet count as ended.
    """
    try:
        _signal_group(leader, signal.SIGTERM)
        _wait_for_end(leader, patience)
    finally:  # an impatient second Ctrl-C lands here
        if _members(leader):
            _signal_group(leader, signal.SIGKILL)
            _wait_for_end(leader, 10.0)


def _signal_group(leader: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, number)


def _wait_for_end(leader: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while _members(leader) and time.monotonic() < deadline:
        time.sleep(0.05)


def _members(leader: int) -> list[int]:
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.Error):
            if os.getpgid(process.pid) == leader and not _ended(process):
                members.append(process.pid)
    return members


def _ended(process: psutil.Process) -> bool:
    # The first thread turns zombie before the others are gone, and they still hold the port.
    return bool(process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1)


class LabelStudio:
    """A Label Studio process of our own; a context manager that starts and stops it.

    Attributes:
        settings: As given.
        account: Who can log in; known from the start on, also before the server runs.
        url: ``http://127.0.0.1:<port>`` of the running server.
        log: Path of the server's log.
    """

    def __init__(self, settings: StudioSettings) -> None:
        self.settings = settings
        self.home = settings.home.resolve()
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.log = self.home / "label-studio.log"
        self.account = self._remembered_account()
        self.url = ""
        self._pid_file = self.home / "process.json"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """Process id of the running server, which leads a process group of its own."""
        return self._process.pid if self._process else None

    def start(self, report: Report = lambda _: None, seconds: float = 180.0) -> None:
        """Start the server and wait until it answers: some seconds, and half a minute the very first time.

        A server that a crashed owner left behind on this home is stopped first.

        Args:
            report: Called about every second with how long it has taken.
            seconds: How long to wait for an answer, apart from the empty database of the first time.

        Raises:
            LabelStudioError: It runs already, it ended, or it did not answer in time (with its log's end).
        """
        if self._process is not None:
            raise LabelStudioError(f"Label Studio is already running at {self.url}.")
        program = self.settings.environment / "bin" / "label-studio"
        if not program.exists():
            raise LabelStudioError(f"Label Studio is not installed in {self.settings.environment}.")
        self._stop_leftover()
        self._put_empty_database(program, report)
        port = free_port(self.settings.port)
        with self.log.open("wb") as log:
            process = self._process = subprocess.Popen(
                self._command(program, port),
                env=self._variables(),
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        atexit.register(self.stop)
        try:
            self._remember(process)
            self._wait(process, port, report, seconds)
        except BaseException:
            self.stop()
            raise

    def stop(self, patience: float = 5.0) -> None:
        """Stop the server and everything it started; safe to call again, and when it never started."""
        atexit.unregister(self.stop)
        process, self._process = self._process, None
        if process is None:
            return
        try:
            stop_group(process.pid, patience)
        finally:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10.0)  # collects it, so that no zombie stays
            self._pid_file.unlink(missing_ok=True)

    def personal_access_token(self) -> str:
        """Return a personal access token of the account: that of earlier starts if it works, or a new one."""
        kept = self.home / "personal-access-token"
        if kept.exists():
            token = kept.read_text().strip()
            refresh = f"{self.url}/api/token/refresh/"
            if httpx.post(refresh, json={"refresh": token}, trust_env=False).is_success:
                return token
        token = personal_access_token(self.url, self.account.username, self.account.password, replace=True)
        _write_private(kept, token)
        return token

    def log_tail(self, lines: int = 20) -> str:
        """Return the last lines of the server's log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _put_empty_database(self, program: Path, report: Report) -> None:
        """Give a new home a copy of the environment's empty database, which takes half a minute to make."""
        target, seed = self.home / "data" / _DATABASE, self.settings.environment / _DATABASE
        if target.exists():
            return
        target.parent.mkdir(exist_ok=True, mode=0o700)
        if not seed.exists():
            with tempfile.TemporaryDirectory(dir=self.home) as folder:
                command = [str(program), "version", "--data-dir", folder]  # migrates, then tells its version
                with self.log.open("wb") as log:
                    process = subprocess.Popen(command, env=self._variables(), stdout=log, stderr=log)
                begun = time.monotonic()
                try:
                    while process.poll() is None:
                        waited = time.monotonic() - begun
                        report(f"Label Studio makes its database, once: {waited:.0f} s of about 30.")
                        time.sleep(1.0)
                finally:
                    process.kill()
                    process.wait()
                if process.returncode != 0:
                    raise LabelStudioError(f"Label Studio could not make its database:\n{self.log_tail()}")
                _copy_whole(Path(folder) / _DATABASE, seed)
        _copy_whole(seed, target)

    def _command(self, program: Path, port: int) -> list[str]:
        place = ["--data-dir", str(self.home / "data"), "--internal-host", LOOPBACK, "--port", str(port)]
        return [str(program), "start", "--no-browser", *place]

    def _variables(self) -> dict[str, str]:
        root = self.settings.document_root
        offline = {
            # no usage reports, no crash reports from server or browser, no question for a newer version
            "LABEL_STUDIO_COLLECT_ANALYTICS": "false",
            "LABEL_STUDIO_SENTRY_DSN": "",
            "LABEL_STUDIO_FRONTEND_SENTRY_DSN": "",
            "LABEL_STUDIO_LATEST_VERSION_CHECK": "false",
            "LABEL_STUDIO_FEATURE_FLAGS_OFFLINE": "true",
            # /heidi-tips asks GitHub and has no switch: it meets a closed door instead
            "HTTPS_PROXY": _NOWHERE,
            "https_proxy": _NOWHERE,
            # and a backend on loopback is never asked through a proxy
            "NO_PROXY": f"{LOOPBACK},localhost,::1",
            "no_proxy": f"{LOOPBACK},localhost,::1",
        }
        return {
            **{name: os.environ[name] for name in _INHERITED if name in os.environ},
            **offline,
            "PYTHONUNBUFFERED": "1",
            # user_config_dir and its kin would be written to the person's own folders
            **{f"XDG_{kind}_HOME": str(self.home / kind.lower()) for kind in ("CONFIG", "DATA", "CACHE")},
            # the account goes by environment, because every user of the machine can read command lines
            "LABEL_STUDIO_USERNAME": self.account.username,
            "LABEL_STUDIO_PASSWORD": self.account.password,
            "LABEL_STUDIO_USER_TOKEN": self.account.token,
            "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
            "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
            # a backend on loopback is refused otherwise, and its row stays behind without a webhook
            "LABEL_STUDIO_ML_BLOCK_LOCAL_IP": "false",
            "LABEL_STUDIO_SSRF_PROTECTION_ENABLED": "false",
            # both always: where neither is set, Label Studio looks for a root by itself
            "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true" if root else "false",
            "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(root.resolve() if root else self.home / "none"),
            **self.settings.variables,
        }

    def _remembered_account(self) -> Account:
        """The account that the home's database has: made up or as given at the first start, then kept."""
        settings, path = self.settings, self.home / "account.json"
        if path.exists():
            account = Account(**json.loads(path.read_text()))
            for name, kept in asdict(account).items():
                if getattr(settings, name) not in (None, kept):
                    raise LabelStudioError(f"{self.home} was made with another {name}: give that one.")
            return account
        account = Account(
            settings.username or "annotator@example.com",
            settings.password or secrets.token_urlsafe(12),
            settings.token or secrets.token_hex(20),
        )
        _write_private(path, json.dumps(asdict(account)))
        return account

    def _remember(self, process: subprocess.Popen[bytes]) -> None:
        server, owner = psutil.Process(process.pid), psutil.Process()
        entry = {
            "pid": server.pid,
            "started": server.create_time(),
            "owner": owner.pid,
            "owner_started": owner.create_time(),
        }
        _write_private(self._pid_file, json.dumps(entry))

    def _stop_leftover(self) -> None:
        try:
            entry = json.loads(self._pid_file.read_text())
            server = _same_process(entry["pid"], entry["started"])
            owner = _same_process(entry["owner"], entry["owner_started"])
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError):
            server = owner = None
        if server is not None and str(self.home / "data") in _command_line(server):
            if owner is not None:
                raise LabelStudioError(f"Label Studio runs on {self.home}: stop process {owner.pid} first.")
            stop_group(server.pid)
        self._pid_file.unlink(missing_ok=True)

    def _wait(self, process: subprocess.Popen[bytes], port: int, report: Report, seconds: float) -> None:
        begun = told = time.monotonic()
        while (now := time.monotonic()) - begun < seconds:
            if process.poll() is not None:
                raise LabelStudioError(f"Label Studio ended while starting:\n{self.log_tail()}")
            # Where the port was taken in the meantime, Label Studio moves to another: ask the process.
            if listening := _listening_port(process.pid, port):
                url = f"http://{LOOPBACK}:{listening}"
                with contextlib.suppress(httpx.TransportError):
                    if httpx.get(f"{url}/health", timeout=5.0, trust_env=False).is_success:
                        self.url = url
                        return
            if now - told >= 1.0:
                told = now
                report(f"Label Studio is starting: {now - begun:.0f} s.")
            time.sleep(0.1)
        raise LabelStudioError(f"Label Studio was not up after {seconds:.0f} s:\n{self.log_tail()}")


def _same_process(pid: int, started: float) -> psutil.Process | None:
    """The process ``pid`` if it is the one that started then; numbers are given out again."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        if abs(process.create_time() - started) < 2.0 and not _ended(process):
            return process
    return None


def _command_line(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return list(process.cmdline())
    return []


def _listening_port(pid: int, asked: int) -> int | None:
    try:
        connections = psutil.Process(pid).net_connections("tcp4")
    except psutil.AccessDenied:  # some systems tell root only
        return asked
    except psutil.NoSuchProcess:
        return None
    return next((int(found.laddr.port) for found in connections if found.status == psutil.CONN_LISTEN), None)


def _copy_whole(source: Path, target: Path) -> None:
    """Copy a file so that ``target`` exists only when it is complete."""
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    shutil.copyfile(source, part)
    part.replace(target)


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(text)
    part.replace(path)


# The tokens


@contextlib.contextmanager
def logged_in(base_url: str, username: str, password: str) -> Iterator[httpx.Client]:
    """Give an HTTP client with a session of the account, as a browser has after the login form.

    Raises:
        LabelStudioError: The account was refused.
    """
    with httpx.Client(base_url=base_url, timeout=30.0, trust_env=False) as client:
        client.get("/user/login/").raise_for_status()
        form = {"email": username, "password": password, "csrfmiddlewaretoken": client.cookies["csrftoken"]}
        answer = client.post("/user/login/", data=form, headers={"Referer": f"{base_url}/user/login/"})
        if not (answer.is_redirect and "sessionid" in client.cookies):
            raise LabelStudioError(f"Label Studio at {base_url} refused the login of {username}.")
        client.headers["X-CSRFToken"] = client.cookies["csrftoken"]
        client.headers["Referer"] = base_url
        yield client


def personal_access_token(base_url: str, username: str, password: str, *, replace: bool = False) -> str:
    """Create a personal access token, which the Label Studio SDK takes as ``api_key``.

    Label Studio keeps one valid token for an account and shows it only when it is made.

    Args:
        base_url: Address of the server.
        username: E-mail address of the account.
        password: Its password.
        replace: Revoke a token that exists already; whoever uses it is then refused.

    Raises:
        LabelStudioError: The account was refused, or it has a token and ``replace`` is False.
    """
    with logged_in(base_url, username, password) as client:
        answer = client.post("/api/token/")
        if answer.status_code == httpx.codes.CONFLICT and replace:
            for token in _checked(client.get("/api/token/")):
                client.post("/api/token/blacklist/", json={"refresh": token["token"]}).raise_for_status()
            answer = client.post("/api/token/")
        if answer.status_code == httpx.codes.CONFLICT:
            raise LabelStudioError(f"{username} has a personal access token: use it, or replace it.")
        return str(_checked(answer)["token"])


def legacy_token(base_url: str, username: str, password: str, *, enable: bool = True) -> str:
    """Return the account's legacy token, and with ``enable`` switch such tokens on for the organisation."""
    with logged_in(base_url, username, password) as client:
        if enable:
            allowed = {"api_tokens_enabled": True, "legacy_api_tokens_enabled": True}
            _checked(client.post("/api/jwt/settings", json=allowed))
        return str(_checked(client.get("/api/current-user/token"))["token"])


def _checked(answer: httpx.Response) -> Any:
    if not answer.is_success:
        raise LabelStudioError(f"Label Studio answered {answer.status_code} to {answer.request.url.path}.")
    return answer.json()
