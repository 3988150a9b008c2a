"""The Dockerfile's steps, without a container engine: the same commands in a clean virtual environment.

What differs from a container is said: steps of the operating system (users, folders) are left out, and the Python is
this machine's.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dockerfile_parse import DockerfileParser

from tator_sdk.errors import TatorError

ROOT = Path(__file__).parents[1]
ENVIRONMENT = "/opt/tator"
"""Where the image has its virtual environment."""
MARKER = ".built-by-tator"
"""Stands in a folder that may be removed for the next build."""
_STAGE = re.compile(r"(?P<base>\S+)\s+AS\s+(?P<name>\S+)", re.IGNORECASE)


@dataclass(frozen=True)
class Step:
    """One instruction of a stage, as ``COPY`` with ``constraints.txt ./``."""

    instruction: str
    value: str


@dataclass(frozen=True)
class Stage:
    """A part of the Dockerfile from one FROM to the next."""

    name: str
    base: str
    steps: tuple[Step, ...]


def read_stages(dockerfile: Path = ROOT / "Dockerfile") -> dict[str, Stage]:
    """The stages of a Dockerfile by name, in order.

    Raises:
        TatorError: a stage has no name.
    """
    stages: dict[str, Stage] = {}
    name, base, steps = "", "", list[Step]()
    for one in DockerfileParser(str(dockerfile), env_replace=False).structure:
        instruction, value = str(one["instruction"]), str(one["value"])
        if instruction == "FROM":
            if name:
                stages[name] = Stage(name, base, tuple(steps))
            found = _STAGE.fullmatch(value)
            if not found:
                raise TatorError(f"A stage without a name in {dockerfile}: FROM {value}")
            name, base, steps = found["name"], found["base"], []
        elif instruction != "COMMENT" and name:
            steps.append(Step(instruction, value))
    return {**stages, name: Stage(name, base, tuple(steps))}


def variables_of(target: str, stages: Mapping[str, Stage]) -> dict[str, str]:
    """What ENV sets in an image, with that of the stages it stands on."""
    stage = stages[target]
    before = variables_of(stage.base, stages) if stage.base in stages else {}
    for step in stage.steps:
        if step.instruction == "ENV":
            before |= dict(re.findall(r"(\w+)=(\S*)", step.value))
    return before


def command_of(target: str, stages: Mapping[str, Stage]) -> list[str]:
    """What an image runs where nothing else is said."""
    for step in reversed(stages[target].steps):
        if step.instruction == "CMD":
            return [str(word) for word in json.loads(step.value)]
    return command_of(stages[target].base, stages)


def build(folder: Path, say: Callable[[str], None], stage: str = "build") -> Path:
    """Do what a stage does in a virtual environment at ``folder``/tator.

    Args:
        folder: to work in; what an earlier build left there is removed.
        say: takes a line for each step.
        stage: of the Dockerfile.

    Returns:
        The environment.

    Raises:
        TatorError: a step failed, or something else is there.
    """
    folder = folder.resolve()  # the steps run elsewhere: by a relative PATH they would find another environment's pip
    if folder.exists() and not (folder / MARKER).exists() and (folder.is_file() or any(folder.iterdir())):
        raise TatorError(f"There is something at {folder} that was not built here: give another folder, or remove it.")
    shutil.rmtree(folder, ignore_errors=True)
    environment, source = folder / "tator", folder / "source"
    source.mkdir(parents=True)
    (folder / MARKER).touch()
    stages = read_stages()
    variables = {
        name: value.replace(ENVIRONMENT, str(environment)) for name, value in variables_of(stage, stages).items()
    }
    variables["PATH"] = f"{environment / 'bin'}:{os.environ['PATH']}"
    for step in stages[stage].steps:
        begun = time.monotonic()
        if step.instruction == "COPY":
            _copy(step.value, source)
        elif step.instruction == "RUN" and f"-m venv {ENVIRONMENT}" in step.value:
            venv.create(environment, with_pip=True)
        elif step.instruction == "RUN":
            done = subprocess.run(  # noqa: S602 - the Dockerfile's own shell line
                step.value, shell=True, cwd=source, env={**os.environ, **variables}, capture_output=True, text=True
            )
            if done.returncode:
                raise TatorError(f"{step.value}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        else:
            continue
        say(f"{time.monotonic() - begun:6.1f} s  {step.instruction} {step.value}")
    return environment


def _copy(value: str, source: Path) -> None:
    *names, target = value.split()
    for name in names:
        given = ROOT / name
        if given.is_dir():
            shutil.copytree(given, source / target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(given, source / target)


def main() -> int:
    """Build, and let the result say what it has."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "image").resolve()
    begun = time.monotonic()
    try:
        environment = build(folder, lambda said: print(said, flush=True))
    except TatorError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{time.monotonic() - begun:6.1f} s  in all", flush=True)
    size = subprocess.run(["du", "-sh", environment], capture_output=True, text=True, check=True).stdout.split()[0]
    print(f"the environment takes {size}")
    imports = "import sam2, torchvision, tator_ml.jobs, training.cli"
    for check in (["tator", "--help"], ["pip", "check"], ["python", "-c", imports]):
        done = subprocess.run([environment / "bin" / check[0], *check[1:]], cwd=folder, capture_output=True, text=True)
        print(f"{'ok' if done.returncode == 0 else 'FAILED'}: {' '.join(check)}")
        if done.returncode:
            print(done.stdout[-2000:], done.stderr[-2000:])
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
