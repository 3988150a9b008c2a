"""Label Studio on one host, Tator on another, as docs/remote-gpu.md has it: `make remote-check`, three minutes.

The hosts are network namespaces; what crosses the wire is counted by the kernel.
"""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from demo.environment import ENVIRONMENT
from demo.label_studio import LabelStudio, StudioSettings
from demo.labelled import LabelledProject, LabelledTask, labelled_project, region
from deploy.compose import ROOT
from tator_ml.jobs import JobRecords, connect_redis
from tator_sdk.settings import Settings
from training.starter.scenes import CLASSES, SceneSettings

from ..jobs.conftest import until
from .hosts import Host, linked, why_not
from .servers import PROXY, TUNNEL, caddy, certificate, nginx, program, tunnel

WANTED = "REMOTE_CHECK" in os.environ
NOT_WANTED = pytest.mark.skipif(not WANTED, reason="takes minutes; `make remote-check` runs it")
DOCS = (ROOT / "docs" / "remote-gpu.md").read_text()

STUDIO, TATOR = "studio.example", "tator.example"
SCRAMBLED = {shape: CLASSES[(index + 3) % len(CLASSES)].capitalize() for index, shape in enumerate(CLASSES)}
SEEDS = range(9_860_000, 9_860_036)
LABELLED = 30
SCENES = SceneSettings(size_wh=(640, 640), min_side=60, max_side=300)
BARE_CLICK_BYTES = 50_000
"""A click may bring this many bytes beside a picture: the request, the picture's date asked for, a token renewed."""
OVERHEAD, BESIDE_BYTES = 1.03, 150_000
"""Headers and encryption, and what else a step brings, such as annotations: less than any one picture."""


@pytest.mark.parametrize("file", ["Caddyfile", "label-studio.Caddyfile", "nginx.conf"])
def test_the_documentation_shows_the_files_that_are_tried(file: str) -> None:
    assert f"```\n{(PROXY / file).read_text()}```" in DOCS


def test_the_documentation_shows_the_tunnel_that_is_tried() -> None:
    shown = next(line.split() for line in DOCS.splitlines() if line.startswith("ssh -N"))
    assert {"-L", "-R"} <= set(shown) and all(word in TUNNEL.read_text() for word in shown)


@dataclass
class Site:
    """Label Studio on the near host; what :func:`labelled_project` wants to know of it."""

    near: Host
    far: Host
    studio: LabelStudio
    settings: Settings
    folder: Path
    files: Path


@dataclass
class Tator:
    """A running ``tator up`` on the far host."""

    far: Host
    home: Path
    seconds: dict[str, float] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)
    pictures: dict[str, tuple[int, int]] = field(default_factory=dict)

    def kept(self) -> dict[str, int]:
        """Pictures in its store, with their bytes."""
        return {path.name: path.stat().st_size for path in (self.home / "images").iterdir() if path.name[0] != "."}

    @contextmanager
    def measured(self, step: str) -> Iterator[Callable[[], None]]:
        """Count what a step takes: its seconds, and the bytes and pictures that came until the wire is quiet again.

        Yields:
            To be called where its seconds are over, if before its end.
        """
        before, bytes_before, ends = self.kept(), self.far.received(), list[float]()
        begun = time.monotonic()
        yield lambda: ends.append(time.monotonic())
        self.seconds[step] = round((*ends, time.monotonic())[0] - begun, 2)
        quiet(self.far)
        self.bytes[step] = self.far.received() - bytes_before
        new = [size for name, size in self.kept().items() if name not in before]
        self.pictures[step] = len(new), sum(new)

    def told(self, step: str) -> str:
        """One line about a step."""
        count, size = self.pictures[step]
        return json.dumps(
            {"step": step, "s": self.seconds[step], "bytes": self.bytes[step], "pictures": count, "their_bytes": size}
        )


def quiet(host: Host, calm_bytes: int = 2000) -> None:
    """Wait until hardly anything has come over the wire for a second."""
    deadline, before = time.monotonic() + 60, host.received()
    while time.monotonic() < deadline:
        time.sleep(1)
        now = host.received()
        if now - before < calm_bytes:
            return
        before = now
    raise AssertionError("the wire does not become quiet")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if not (ENVIRONMENT / "bin" / "label-studio").exists():
        pytest.skip("Label Studio is not installed: `make test` builds its environment")
    if reason := why_not():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("site")
    certificate(folder, (TATOR, STUDIO))
    # Label Studio of this test has a closed door for a proxy, so that nothing asks hosts outside
    direct = f"127.0.0.1,localhost,{TATOR}"
    variables = {"REQUESTS_CA_BUNDLE": str(folder / "tator.pem"), "NO_PROXY": direct, "no_proxy": direct}
    with linked({STUDIO: "10.77.0.1", TATOR: "10.77.0.2"}) as (near, far), near.inside():
        served = folder / "files"
        served.mkdir()
        wanted = StudioSettings(folder / "studio", document_root=served, variables=variables, wrapper=near.wrapper)
        with LabelStudio(wanted) as studio:
            token = SecretStr(studio.personal_access_token())
            settings = Settings(label_studio_url=studio.url, label_studio_api_key=token)
            yield Site(near, far, studio, settings, served / "scenes", folder)


def environment(site: Site, **tator: str) -> dict[str, str]:
    """Of a command of Tator's on either host."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TATOR_")}
    token = site.settings.label_studio_api_key
    assert token is not None
    ours = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "LABEL_STUDIO_API_KEY": token.get_secret_value()}
    return {**clean, **ours, **tator}


@contextmanager
def up(site: Site, home: Path, variables: Mapping[str, str]) -> Iterator[Tator]:
    """``tator up`` on the far host, until its end."""
    home.mkdir()
    given = environment(site, TATOR_HOME=str(home), **variables)
    auth = ("tator", variables["TATOR_PASSWORD"]) if "TATOR_PASSWORD" in variables else None
    log = home.parent / f"{home.name}.log"
    with site.far.running([sys.executable, "-m", "tator_sdk", "up"], log, given, patience=1) as process:
        try:
            until(lambda: "Tator is up" in log.read_text() or process.poll() is not None, 120)
            assert process.poll() is None, log.read_text()
            with site.far.inside():
                httpx.get("http://127.0.0.1:9090/health", auth=auth, trust_env=False).raise_for_status()
            yield Tator(site.far, home)
        finally:
            process.send_signal(signal.SIGTERM)  # it stops its parts itself, each in a group of its own
            process.wait(60)


@contextmanager
def connected(site: Site, title: str, *options: str, **variables: str) -> Iterator[LabelledProject]:
    """A project whose backend was added by ``tator connect`` on Label Studio's host."""

    def connect(settings: Settings, project: int) -> None:
        command = [sys.executable, "-m", "tator_sdk", "connect", "--project", str(project), *options]
        given = environment(site, TATOR_HOME=str(site.files / "command"), **variables)
        done = subprocess.run(
            [*site.near.wrapper, *command], env=given, cwd=site.files, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr

    names = sorted(SCRAMBLED.values())
    with labelled_project(site, title, SEEDS, SCRAMBLED.__getitem__, names, SCENES, connect=connect) as project:
        yield project


def click(project: LabelledProject, task: LabelledTask, box: int = 0) -> str:
    """Draw a box with a class through Label Studio; returns the version of the model that answered."""
    one = task.boxes[box]
    answer = project.ask(task, [region(one.label, one.xyxy, task.size_wh)])
    assert answer["result"], answer
    return str(answer["model_version"])


def work(tator: Tator, project: LabelledProject) -> None:
    """Clicks, submissions and a training: each picture comes once, and is never asked for again."""
    first = project.tasks[0]
    with tator.measured("first click") as answered:
        click(project, first)
        answered()
        until(lambda: len(tator.kept()) == 2)  # the next picture is made ready too
    with tator.measured("second click"):
        click(project, first, -1)
    with tator.measured("submissions"):
        project.annotate(project.tasks[:LABELLED])
        until(lambda: len(tator.kept()) >= LABELLED, 60)
    with tator.measured("training"):
        project.studio.ml.train(project.backend)
        version = trained(tator, project)
    with tator.measured("click after it"):
        assert click(project, first).endswith(f"+{version}")
    for step in tator.bytes:
        print(tator.told(step))
        count, size = tator.pictures[step]
        if step in {"second click", "training", "click after it"}:
            assert count == 0, step
        assert size <= tator.bytes[step] <= OVERHEAD * size + BESIDE_BYTES, step
    smallest = min(tator.kept().values())
    for step in ("second click", "click after it"):
        assert tator.bytes[step] < BARE_CLICK_BYTES < BESIDE_BYTES < smallest, step


def trained(tator: Tator, project: LabelledProject) -> str:
    """The version of the head that a training made, when it is over."""
    with closing(connect_redis(Settings(home=tator.home))) as connection:
        records = JobRecords(connection)
        until(lambda: any(job.over for job in records.list(project=project.number)), 120)
        (job,) = records.list(project=project.number)
    assert job.status == "done" and job.result["activated"], job
    return str(job.result["version"])


@NOT_WANTED
@pytest.mark.studio
@pytest.mark.timeout(400)
@pytest.mark.skipif(not all(map(program, ("ssh", "sshd", "ssh-keygen"))), reason="openssh-server is not installed")
def test_by_an_ssh_tunnel(site: Site, tmp_path: Path) -> None:
    with ExitStack() as stack:
        stack.enter_context(tunnel(site.near, site.far, tmp_path))
        variables = {"LABEL_STUDIO_URL": "http://127.0.0.1:8080"}
        tator = stack.enter_context(up(site, tmp_path / "gpu", variables))
        work(tator, stack.enter_context(connected(site, "By a tunnel")))


@NOT_WANTED
@pytest.mark.studio
@pytest.mark.timeout(400)
@pytest.mark.skipif(not all(map(program, ("caddy", "nginx", "openssl"))), reason="caddy or nginx is not installed")
def test_by_tls_proxies(site: Site, tmp_path: Path) -> None:
    known = {"SSL_CERT_FILE": str(site.files / "tator.pem"), "TATOR_PASSWORD": "not-to-be-guessed"}
    variables = {**known, "LABEL_STUDIO_URL": f"https://{STUDIO}", "TATOR_BEHIND_PROXY": "true"}
    with ExitStack() as stack:
        stack.enter_context(caddy(site.near, "label-studio.Caddyfile", site.files))
        tator = stack.enter_context(up(site, tmp_path / "gpu", variables))
        with caddy(site.far, "Caddyfile", site.files):
            project = stack.enter_context(connected(site, "By TLS", "--backend", f"https://{TATOR}", **known))
            work(tator, project)
            check_dashboard(site, known["TATOR_PASSWORD"])
        with nginx(site.far, site.files):
            with tator.measured("click by nginx"):
                click(project, project.tasks[0])
            print(tator.told("click by nginx"))
            check_dashboard(site, known["TATOR_PASSWORD"])


def check_dashboard(site: Site, password: str) -> None:
    """Behind the proxy the dashboard knows that it is seen by TLS, and its streams come through at once."""
    trusted = ssl.create_default_context(cafile=site.files / "tator.pem")
    address, named = f"https://{site.far.address}", {"extensions": {"sni_hostname": TATOR}}
    with httpx.Client(base_url=address, headers={"Host": TATOR}, verify=trusted, trust_env=False, timeout=5) as web:
        form = web.get("/tator/sign-in", **named)
        assert form.is_success and "Secure" in form.headers["set-cookie"]
        assert web.get("/tator/now", **named).headers["location"].startswith("/tator/sign-in")
        with web.stream("GET", "/tator/now/live", auth=("tator", password), **named) as stream:
            assert b"retry:" in next(stream.iter_raw())
