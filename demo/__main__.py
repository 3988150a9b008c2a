"""``make demo``: Label Studio with a connected project, on this machine, in one command.

With ``--check`` it sends prompts through Label Studio's own API instead of waiting for a person,
prints what came back as JSON lines, stops everything, and exits with 0 only if the answers are right.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

import httpx
from rich.console import Console
from rich.markup import escape

from demo.check import Checker, verdict
from demo.environment import ENVIRONMENT, ensure_environment
from demo.stack import DemoSettings, DemoStack
from label_config.errors import LabelConfigError
from tator_ml.running.processes import Report, termination_as_exit
from tator_sdk.auth import LabelStudioAuth
from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings

HOME = Path(os.environ.get("TATOR_HOME") or Path(__file__).parents[1] / ".tator").resolve()


def main() -> int:
    """Run the demo; returns the exit code."""
    options = _options()
    console = Console(stderr=options.check)  # with --check standard output holds JSON alone
    begun = time.monotonic()

    def report(said: str) -> None:
        console.print(f"[dim]{time.monotonic() - begun:5.1f} s[/]  {said}", highlight=False)

    try:
        with termination_as_exit():
            ensure_environment(ENVIRONMENT, report)
            with DemoStack(_settings(options, report), report) as stack:
                if options.check:
                    return check(stack)
                explain(console, stack)
                stack.parts.watch()
    except KeyboardInterrupt:
        console.print("everything is stopped")
        return 130
    except (TatorError, LabelConfigError) as error:
        console.print(f"[bold red]demo:[/] {escape(str(error))}", highlight=False)
    return 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="send prompts, print the answers, stop")
    parser.add_argument("--images", type=Path, help="folder of your own pictures instead of generated scenes")
    parser.add_argument("--classes", default="Object", help="with --images: class names, separated by commas")
    options = parser.parse_args()
    if options.images is not None and options.check:
        parser.error("--check knows the truth of the generated scenes only: leave --images out")
    if options.images is not None and not options.images.is_dir():
        parser.error(f"{options.images} is not a folder")
    return options


def _settings(options: argparse.Namespace, report: Report) -> DemoSettings:
    if options.images is None:
        return DemoSettings(HOME)
    classes = [name.strip() for name in options.classes.split(",") if name.strip()]
    chosen = {} if "TATOR_SEGMENTER" in os.environ else {"segmenter": _segmenter_for_photographs(report)}
    return DemoSettings(HOME, options.images.resolve(), classes, "all", tator=chosen)


def _segmenter_for_photographs(report: Report) -> str:
    """Real weights where a hub can be reached; the starter's, with a word about it, where not."""
    from tator_ml.engine.segmenters.weights import WeightsMissing, resolve

    settings = Settings(home=HOME)
    report("looking for MobileSAM's weights (40 MB)")
    try:
        resolve("mobile_sam", None, settings.weights_dir, settings.offline)
    except WeightsMissing as error:
        report(f"{error} Going on with the starter weights, which are not made for photographs.")
        return "starter"
    return "mobile_sam"


def check(stack: DemoStack) -> int:
    """Send the prompts and print what came back; 0 if the answers are right."""
    auth = LabelStudioAuth(stack.studio.url, stack.studio.personal_access_token())
    with httpx.Client(base_url=stack.studio.url, auth=auth, timeout=120, trust_env=False) as client:
        tasks = client.get("/api/tasks", params={"project": stack.project, "page_size": 100}).json()["tasks"]
        tasks.sort(key=lambda task: str(task["data"]["image"]))
        checker = Checker(client, stack.backend, stack.settings.backend_url, stack.project)
        shots = []
        for shot in checker.shots(tasks, stack.folder):
            shots.append(shot)
            print(shot.line(), flush=True)
    good, summary = verdict(shots)
    print(json.dumps(summary), flush=True)
    return 0 if good else 1


def explain(console: Console, stack: DemoStack) -> None:
    """Say where it is and what to try."""
    account = stack.studio.account
    console.print(
        f"""
[bold green]The demo is ready.[/] Ctrl-C stops everything.

  Address   {stack.studio.url}/projects/{stack.project}/data
  Login     {account.username}
  Password  {account.password}
  Dashboard {stack.settings.backend_url}/tator/

Three things to try, with Auto-Annotation switched on in the bar below the picture:
  1. Press a label's number, click an object: it becomes a box with its class.
  2. Press Alt and the number, draw a loose box: it snaps to the object.
  3. Two objects taken for one? Pick the label again and Alt-click the one that does not belong.
""",
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    sys.exit(main())
