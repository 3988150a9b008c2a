"""A private Label Studio: its own home folder, account and process, on loopback only.

The demo and the tests run the real server like this::

    ensure_environment(Path(".venv-label-studio"), print)
    with LabelStudio(StudioSettings(home=Path(".tator/label-studio"))) as studio:
        print(studio.url, studio.account.username, studio.account.password)
        token = studio.personal_access_token()  # what the SDK takes as api_key

Nothing is written outside the home folder and the environment, and the server makes no call to the outside.
To have the environment ready before that::

    python -m demo.label_studio [FOLDER]
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

import httpx
import psutil

from demo.environment import ENVIRONMENT, ensure_environment
from demo.errors import LabelStudioError
from demo.tokens import personal_access_token
from tator_ml.running.processes import LOOPBACK, PidFile, Report, free_port, stop_group, write_private

_INHERITED = (
    "PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_FILE",
)  # fmt: skip
"""What the server sees of our environment: Label Studio reads bare names too (HOST, DEBUG, PASSWORD)."""

_DATABASE = "label_studio.sqlite3"
_NOWHERE = f"http://{LOOPBACK}:9"  # the discard port: refused at once
_ATTEMPTS = 5
_PORT_LOST = "That port is already in use"  # Django's words, where another server came between its look and its bind


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
        wrapper: Words before its command line, such as ``ip netns exec NAME``; a program that becomes what it starts.
    """

    home: Path
    port: int = 8080
    document_root: Path | None = None
    username: str | None = None
    password: str | None = None
    token: str | None = None
    environment: Path = ENVIRONMENT
    variables: Mapping[str, str] = field(default_factory=dict)
    wrapper: Sequence[str] = ()


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
        self._pid_file = PidFile(self.home / "process.json")
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """Process id of the running server, which leads a process group of its own."""
        return self._process.pid if self._process else None

    def start(self, report: Report = lambda _: None, seconds: float = 600.0) -> None:
        """Start the server and wait until it answers: some seconds, and half a minute the very first time.

        A server that a crashed owner left behind on this home is stopped first. May run in a thread, where
        :meth:`stop` of another thread ends it.

        Args:
            report: Called every few seconds with how long it has taken.
            seconds: How long to wait for an answer, apart from the empty database of the first time.

        Raises:
            TatorError: It runs already, it ended, or it did not answer in time (with its log's end).
        """
        if self._process is not None:
            raise LabelStudioError(f"Label Studio is already running at {self.url}.")
        program = self._program()
        self._stopping.clear()
        self._pid_file.stop_leftover(f"Label Studio on {self.home}")
        self._put_empty_database(program, report)
        atexit.register(self.stop)
        preferred = self.settings.port
        try:
            for attempts_left in reversed(range(_ATTEMPTS)):
                port = free_port(preferred)
                try:
                    self._launch(program, port)
                    return self._wait(port, report, seconds)
                except _PortLostError:
                    if not attempts_left:
                        raise
                preferred = port + 1
        except BaseException:
            self.stop()
            raise

    def prepare(self, report: Report = lambda _: None) -> None:
        """Make the empty database of the home, and of all homes of this environment that come after it.

        Args:
            report: Called every few seconds with how long it has taken.

        Raises:
            TatorError: Label Studio is not installed, or could not make it.
        """
        self._put_empty_database(self._program(), report)

    def _program(self) -> Path:
        program = self.settings.environment / "bin" / "label-studio"
        if not program.exists():
            raise LabelStudioError(f"Label Studio is not installed in {self.settings.environment}.")
        return program

    def _launch(self, program: Path, port: int) -> None:
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command(program, port),
                env=self._variables(),
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._pid_file.write(self._process.pid)

    def stop(self, patience: float = 5.0) -> None:
        """Stop the server and everything it started; safe to call again, and when it never started."""
        self._stopping.set()
        atexit.unregister(self.stop)
        process, self._process = self._process, None
        if process is None:
            return
        try:
            stop_group(process.pid, patience)
        finally:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10.0)  # collects it, so that no zombie stays
            self._pid_file.clear()

    def personal_access_token(self) -> str:
        """Return a personal access token of the account: that of earlier starts if it works, or a new one."""
        kept = self.home / "personal-access-token"
        if kept.exists():
            token = kept.read_text().strip()
            refresh = f"{self.url}/api/token/refresh/"
            if httpx.post(refresh, json={"refresh": token}, trust_env=False).is_success:
                return token
        token = personal_access_token(self.url, self.account.username, self.account.password, replace=True)
        write_private(kept, token)
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
                ticks = _Ticks(report)
                try:
                    while process.poll() is None and not self._stopping.wait(0.1):
                        ticks.tell("Label Studio makes its database, once; about 30 s")
                finally:
                    process.kill()
                    process.wait()
                if self._stopping.is_set():
                    raise LabelStudioError("Label Studio was stopped while starting.")
                if process.returncode != 0:
                    raise LabelStudioError(f"Label Studio could not make its database:\n{self.log_tail()}")
                _copy_whole(Path(folder) / _DATABASE, seed)
        _copy_whole(seed, target)

    def _command(self, program: Path, port: int) -> list[str]:
        place = ["--data-dir", str(self.home / "data"), "--internal-host", LOOPBACK, "--port", str(port)]
        return [*self.settings.wrapper, str(program), "start", "--no-browser", *place]

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
        write_private(path, json.dumps(asdict(account)))
        return account

    def _wait(self, port: int, report: Report, seconds: float) -> None:
        ticks = _Ticks(report)
        process = self._process
        while ticks.seconds() < seconds:
            if self._stopping.is_set() or process is None:
                raise LabelStudioError("Label Studio was stopped while starting.")
            if process.poll() is not None:
                error = _PortLostError if _PORT_LOST in self.log_tail() else LabelStudioError
                raise error(f"Label Studio ended while starting:\n{self.log_tail()}")
            # Where the port was taken in the meantime, Label Studio moves to another: ask the process.
            if listening := _listening_port(process.pid, port):
                url = f"http://{LOOPBACK}:{listening}"
                with contextlib.suppress(httpx.TransportError):
                    if httpx.get(f"{url}/health", timeout=5.0, trust_env=False).is_success:
                        self.url = url
                        return
            ticks.tell("Label Studio is starting")
            time.sleep(0.1)
        raise LabelStudioError(f"Label Studio was not up after {seconds:.0f} s:\n{self.log_tail()}")


class _PortLostError(LabelStudioError):
    """Another server took the port while this one was starting."""


class _Ticks:
    """Tells how long something takes: at once, then every five seconds."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._begun = time.monotonic()
        self._next = 0.0

    def seconds(self) -> float:
        return time.monotonic() - self._begun

    def tell(self, doing: str) -> None:
        if self.seconds() >= self._next:
            self._report(f"{doing}: {self.seconds():.0f} s.")
            self._next += 5.0


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


def main() -> int:
    """``python -m demo.label_studio [FOLDER]``: install Label Studio in an environment, and make its empty database.

    The database is made here because servers that start side by side, as those of the tests, would each make one.
    """
    environment = Path(sys.argv[1]) if len(sys.argv) > 1 else ENVIRONMENT
    try:
        ensure_environment(environment, print)
        with tempfile.TemporaryDirectory() as home:
            LabelStudio(StudioSettings(Path(home), environment=environment)).prepare(print)
        (environment / _DATABASE).touch()  # make compares its age with that of the pins
    except LabelStudioError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
