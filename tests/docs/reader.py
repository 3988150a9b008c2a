"""Somebody who follows the documentation: a home, a checkout, a Label Studio, and what they have started."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr
from typer.testing import CliRunner

from demo.label_studio import LabelStudio
from label_config.build import build
from tator_ml.jobs import JobRecord, JobRecords, connect_redis
from tator_ml.learning.stores import head_registry
from tator_ml.running.processes import free_port, stop_group
from tator_ml.sam3.registry import sam3_registry
from tator_ml.vlm.registry import qwen_registry
from tator_sdk.auth import LabelStudioAuth
from tator_sdk.cli import load_commands
from tator_sdk.settings import Settings
from tator_sdk.studio import open_studio
from tests.docs import material
from tests.docs.commands import ROOT, Command, words
from tests.docs.table import How, Rule, replaced, rule_of

PATIENCE = 420.0
IN_THE_CHECKOUT = {"README.md", "CONTRIBUTING.md", "compose.md", "starter-weights.md", "first-hour.md"}


@dataclass
class Reader:
    """A reader with a scratch home.

    Attributes:
        place: folder of all that is theirs.
        studio: their Label Studio, whose project 3 is the pages'.
    """

    place: Path
    studio: LabelStudio

    def __post_init__(self) -> None:
        """Make the home and the checkout; nothing runs yet."""
        self.home = self.place / "home"
        self.checkout = self.place / "tator"
        self.root = self.studio.settings.document_root or self.place
        self.port = free_port(21_090)
        self._up: subprocess.Popen[bytes] | None = None
        self._up_with: dict[str, str] = {}
        self._build = ""
        self._copy_of_the_tree()
        (self.home / "pictures").mkdir(parents=True)
        material.photograph(self.home / "pictures")
        self.env = {
            **{name: os.environ[name] for name in ("LANG", "LC_ALL", "TMPDIR", "USER") if name in os.environ},
            "PATH": f"{self.checkout / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}", "HOME": str(self.home),
            "PYTHONPATH": str(self.checkout), "COLUMNS": "160", "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1", "TATOR_OFFLINE": "true",
            # what a reader has who started Label Studio elsewhere, beside other servers
            "TATOR_PORT": str(self.port), "LABEL_STUDIO_URL": self.studio.url,
            "LABEL_STUDIO_API_KEY": self.studio.personal_access_token(),
            **material.tiny_models(self.place / "models"),
        }  # fmt: skip

    def _copy_of_the_tree(self) -> None:
        """A checkout of what is here now; older than the environment, so that make does not install again."""
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
        )
        for name in listed.stdout.splitlines():
            if (source := ROOT / name).is_file() and not name.startswith((".venv", "docs/images")):
                target = self.checkout / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
                os.utime(target, (0, 0))
        for name in (".venv", ".venv-label-studio"):
            (self.checkout / name).symlink_to((ROOT / name).resolve())

    @property
    def settings(self) -> Settings:
        """Theirs, as this process needs them."""
        token = SecretStr(self.env["LABEL_STUDIO_API_KEY"])
        return Settings(home=self.data, label_studio_url=self.studio.url, label_studio_api_key=token)

    @property
    def data(self) -> Path:
        """Where Tator keeps its things."""
        return self.home / ".local" / "share" / "tator"

    def make_projects(self) -> None:
        """Three projects; the third, that the pages name, has the classes and 24 annotated tasks."""
        studio: Any = open_studio(self.settings)
        folder = self.root / "scenes"
        config = build("all", list(material.CLASSES), None)
        numbers = [studio.projects.create(title=f"Project {n}", label_config=config).id for n in (1, 2, 3)]
        assert numbers == [1, 2, 3], "a fresh Label Studio counts from one"
        made = material.tasks(folder, 24, 6)
        for path in (folder, self.root / "coco"):
            path.mkdir(exist_ok=True)
            studio.import_storage.local.create(project=3, path=str(path), title=path.name, use_blob_urls=True)
        studio.projects.import_tasks(id=3, request=made)
        material.coco(self.root / "coco", 300, 4)

    def folder_of(self, page: str) -> Path:
        """Where they stand while they read a page, with what the page speaks of."""
        if page in IN_THE_CHECKOUT:
            return self.checkout
        folder = self.place / page.removesuffix(".md")
        if not folder.exists():
            (folder / "data").mkdir(parents=True)
            (folder / ".venv").symlink_to(self.checkout / ".venv")
            street = material.yolo(self.place / f"street-{page}", 100, 6)
            material.zipped(street, folder / "street.zip")
            for name in ("images", "labels", "labelmap.txt"):
                (folder / "data" / name).symlink_to(self._labelled() / name)
            (folder / "data" / "cars").symlink_to(self._labelled())
            (folder / "data" / "cars_seg").symlink_to(self._outlined())
            if page == "extending.md":
                material.package_of_the_page(folder)
            if page == "polygons.md":
                shutil.copytree(street, folder / "cars")
        return folder

    def _labelled(self) -> Path:
        folder = self.place / "cars"
        return folder if folder.exists() else material.yolo(folder, 200, 16)

    def _outlined(self) -> Path:
        folder = self.place / "cars_seg"
        return folder if folder.exists() else material.outlined(folder, 400, 8)

    # what is done with a command

    def follow(self, command: Command, rule: Rule) -> None:
        """Do with a command what its rule says; raises where it does not end as it should."""
        begun = time.monotonic()
        if rule.how is How.VERB:
            self._help(command)
        elif rule.how is How.UP:
            self._start(command, rule)
        elif rule.how is How.RUN:
            self._run(command, rule)
        print(f"{time.monotonic() - begun:6.1f} s  {rule.how.name:5}  {command}", flush=True)

    def _run(self, command: Command, rule: Rule) -> None:
        line = self.filled(command.text)
        if exported := re.fullmatch(r"export (\w+)=(\S+)", line):
            self.env[exported[1]] = exported[2]
            return
        if "pip install" in line:  # into a folder of the reader's, since the environment is shared
            line += f" --quiet --no-index --no-deps --target {self.place / 'site'}"
            self.env["PYTHONPATH"] += f"{os.pathsep}{self.place / 'site'}"
        printed = self.shell(f"{line} {rule.added}".strip(), command)
        if found := re.search(r"To take them back: tator polygons undo (\S+) --project 3", printed):
            self._build = found[1]
        if line.startswith("tator label-config"):
            self._accepted(printed)
        if "--detach" in line:
            self.wait_for_jobs()

    def _accepted(self, configuration: str) -> None:
        """Label Studio takes a configuration, as when it is pasted and saved."""
        auth = LabelStudioAuth(self.studio.url, self.env["LABEL_STUDIO_API_KEY"])
        address = f"{self.studio.url}/api/projects/validate/"
        answer = httpx.post(address, json={"label_config": configuration}, auth=auth, timeout=60, trust_env=False)
        assert answer.is_success, answer.text

    def shell(self, line: str, command: object = "", seconds: float = PATIENCE) -> str:
        """Run a line with bash, as the reader types it, answering yes to questions; it must end with 0."""
        page = command.page if isinstance(command, Command) else "README.md"
        done = subprocess.run(
            ["bash", "-c", line], cwd=self.folder_of(page), env=self.env, input="y\n", capture_output=True, text=True,
            timeout=seconds,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n$ {line}\nended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def _help(self, command: Command) -> None:
        line = re.sub(r" --output \S+", "", command.text)
        if line.split()[0] == "tator":  # a sentence's mention is worth no process of its own
            done = CliRunner().invoke(load_commands(), [*line.split()[1:], "--help"])
            assert done.exit_code == 0 and "Usage" in done.output, f"{command}: {done.output}"
        else:
            assert "usage" in self.shell(f"{line} --help", command)

    def _start(self, command: Command, rule: Rule) -> None:
        line = self.filled(command.text)
        if line.endswith("tator up"):
            self.stop()
            settings = dict(word.split("=", 1) for word in words(line)[:-2])
            self._up_with = settings
            self._up = self._started(line, command, rule, self.env)
            return
        aside = {
            "TATOR_HOME": str(self.place / "aside"),
            "TATOR_ENGINE_KEY": "k" * 32,
            "TATOR_PORT": str(free_port(21_200)),
        }
        if line.startswith(("tator status", "tator worker")):
            self.settle()
            aside = {}
        process = self._started(line, command, rule, {**self.env, **aside})
        self._ended(process)

    def _started(self, line: str, command: Command, rule: Rule, env: dict[str, str]) -> subprocess.Popen[bytes]:
        log = self.place / "started.log"
        typed = _on_a_terminal(line) if "--watch" in line else ["bash", "-c", f"exec env {line}"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                typed, cwd=self.folder_of(command.page), env={**env, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
                preexec_fn=_hears_ctrl_c,
            )  # fmt: skip
        deadline = time.monotonic() + PATIENCE
        while rule.ready not in log.read_text(errors="replace"):
            if process.poll() is not None or time.monotonic() > deadline:
                self._ended(process)
                raise AssertionError(
                    f"{command}\n$ {line}\nis not up ({rule.ready!r}):\n{log.read_text(errors='replace')}"
                )
            time.sleep(0.2)
        return process

    @staticmethod
    def _ended(process: subprocess.Popen[bytes]) -> None:
        """Ctrl-C, as a terminal sends it to all of its group; whatever stays is stopped."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        with contextlib.suppress(ProcessLookupError):
            stop_group(process.pid)
        process.wait(10)

    def stop(self) -> None:
        """End `tator up`."""
        if self._up is not None:
            self._ended(self._up)
            self._up = None

    def settle(self) -> None:
        """Have a plain `tator up` run, as a page takes for granted."""
        if self._up is None or self._up_with or self._up.poll() is not None:
            self.stop()
            self._up_with = {}
            command = Command("README.md", 0, "tator up", inline=False)
            self._up = self._started("tator up", command, rule_of(command), self.env)

    def live_in(self) -> None:
        """Have the project connected and a head of its own trained, as after the first hour."""
        self.settle()
        if not head_registry(self.settings).list():
            self.shell("tator connect --project 3 && tator train clip --project 3")
        self.wait_for_jobs()

    # what the pages' examples stand for

    def filled(self, text: str) -> str:
        """A command with what the reader puts in for the page's examples."""
        return re.sub(r"\{([\w:]+)\}", lambda found: self._value(found[1]), replaced(text))

    def _value(self, name: str) -> str:
        what, _, kind = name.partition(":")
        if what == "job":
            return self._job(kind)
        if what == "build":
            return self._build
        if what == "imported":
            return max((self.data / "imports").glob("import-3-*"), key=lambda path: path.stat().st_mtime).stem
        if what == "port":
            return str(self.port + 100 + int(kind))
        if what == "head":
            return head_registry(self.settings).list()[0].version
        if what in {"qwen", "sam3"}:
            registry: Any = {"qwen": qwen_registry, "sam3": sam3_registry}[what](self.settings)
            if not registry.entries()[1:]:
                command = Command("", 0, f"tator train {what} --project 3", inline=False)
                self.shell(f"{command.text} {rule_of(command).added}")
            return str(registry.entries()[1:][0].id)
        known = {
            "token": self.env["LABEL_STUDIO_API_KEY"], "studio": self.studio.url, "root": str(self.root),
            "home": str(self.data), "pictures": str(self.home / "pictures"),
        }  # fmt: skip
        return known[what]

    def records(self) -> list[JobRecord]:
        """Their jobs, the newest first."""
        return JobRecords(connect_redis(self.settings)).list(None, 1000)

    def _job(self, kind: str) -> str:
        if kind == "sam3" and not any(one.kind == "sam3" for one in self.records()):
            self._value("sam3")
        fitting = [one for one in self.records() if one.kind.startswith(kind) and one.over]
        done = [one for one in fitting if one.status == "done" and not one.request.get("dry_run")]
        return (done or fitting)[0].id

    def wait_for_jobs(self) -> None:
        """Until no job waits or runs."""
        deadline = time.monotonic() + PATIENCE
        while any(not one.over for one in self.records()):
            assert time.monotonic() < deadline, [one.title for one in self.records() if not one.over]
            time.sleep(0.3)


def _on_a_terminal(line: str) -> list[str]:
    """A command that draws, as somebody sees it."""
    return [sys.executable, "-c", "import pty, shlex, sys; pty.spawn(shlex.split(sys.argv[1]))", line]


def _hears_ctrl_c() -> None:
    """Tests that run in a shell's background inherit that it is ignored; a reader's terminal does not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
