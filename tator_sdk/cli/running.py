"""Verbs about a running Tator: ``status``, ``segmenter``, ``words``, ``budget``."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table

from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings

if TYPE_CHECKING:
    from tator_sdk.control import ControlApi

WATCH_SECONDS = 1.0
SHOWN_PICTURES = 10
UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}

Backend = Annotated[str | None, typer.Option(help="Tator's address. Default: port 9090 here.")]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command()(status)
    app.command()(segmenter)
    app.command()(words)
    app.command()(budget)


def _api(backend: str | None) -> ControlApi:
    from tator_sdk.control import ControlApi  # its HTTP client is no part of the other verbs' start

    return ControlApi(Settings(), backend)


def status(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on, once a second; Ctrl-C stops.")] = False,
    backend: Backend = None,
) -> None:
    """Show what the engine does: lanes with ages, warm pictures, budget, memory, how often a click was warm."""
    from rich.live import Live

    api, console = _api(backend), Console(highlight=False)
    if not watch:
        console.print(_drawn(api.get("status")))
        return
    try:
        with Live(_drawn(api.get("status")), console=console, auto_refresh=False) as live:
            while True:
                time.sleep(WATCH_SECONDS)
                live.update(_drawn(api.get("status")), refresh=True)
    except KeyboardInterrupt:
        pass


def segmenter(
    project: Annotated[int, typer.Option("--project", "-p", help="The project's number in Label Studio's address.")],
    name: Annotated[str | None, typer.Argument(metavar="[NAME|default]", help="Without it: show.")] = None,
    backend: Backend = None,
) -> None:
    """Show or choose the segmenter that answers a project, from the next click on.

    Example: tator segmenter --project 3 sam2-tiny
    """
    api = _api(backend)
    if name is None:
        chosen = api.get(f"projects/{project}")["segmenter"]
    else:
        wanted = None if name == "default" else name
        chosen = api.put(f"projects/{project}", {"segmenter": wanted})["segmenter"]
    there = api.get("segmenters")
    said = f"{chosen}" if chosen else f"{there['default']} (the default)"
    Console(highlight=False).print(f"project {project}: {escape(said)}; there are {', '.join(there['names'])}")


def words(
    project: Annotated[int, typer.Option("--project", "-p", help="The project's number in Label Studio's address.")],
    keep: Annotated[str | None, typer.Option(metavar="WORDS", help="Keep these; 'all' for all classes.")] = None,
    field: Annotated[str, typer.Option(help="Prompt field whose options hold. Default: the first.")] = "",
    forget: Annotated[bool, typer.Option("--forget", help="Keep none any more.")] = False,
    backend: Backend = None,
) -> None:
    """Show the words that are asked on every next picture of a project; keep others, or forget them.

    Example: tator words --project 3 --keep "car, bus"
    """
    if forget and keep is not None:
        raise TatorError("--keep and --forget exclude each other; give one of them.")
    api, route = _api(backend), f"projects/{project}"
    if keep is not None:
        text = "" if keep.strip().lower() == "all" else keep.strip()
        chosen = api.put(route, {"words": {"text": text, "field": field}})["words"]
    else:
        chosen = (api.put(route, {"words": None}) if forget else api.get(route))["words"]
    said = f"'{chosen['text'] or 'all'}' is asked on every next picture" if chosen else "no words are kept"
    Console(highlight=False).print(f"project {project}: {escape(said)}")


def budget(
    size: Annotated[str, typer.Argument(metavar="BYTES", help="Bytes, or 512M, 4G.")],
    backend: Backend = None,
) -> None:
    """Change the memory for warm pictures while Tator runs; TATOR_WARM_BYTES holds from the next start.

    Example: tator budget 2G
    """
    now = _api(backend).put("budget", {"budget_bytes": bytes_of(size)})
    held = sum(one["nbytes"] for one in now["warm"])
    typer.echo(f"warm pictures may take {in_units(now['budget_bytes'])}; {len(now['warm'])} take {in_units(held)} now")


def bytes_of(size: str) -> int:
    """``1048576``, ``512M``, ``1.5 GiB`` → bytes.

    Raises:
        TatorError: it is no size.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", size.strip().lower())
    if not found:
        raise TatorError(f"'{size}' is no size; give bytes, or a number with M or G such as 512M.")
    return int(float(found[1]) * 1024 ** UNITS[found[2]])


def in_units(count: float) -> str:
    """Bytes to read."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _drawn(now: Mapping[str, Any]) -> Group:
    """A status to look at."""
    if not now["ready"]:
        return Group(f"[red]not ready[/]: {escape(str(now['error'] or 'the models are loading'))}")
    about = Table(show_header=False, box=None, pad_edge=False)
    for name, said in _lines(now).items():
        if said:
            about.add_row(f"[bold]{name}[/]", escape(said))
    lanes = Table("lane", "waiting", "oldest", "last hour: half within", "99% within", box=None, pad_edge=False)
    for lane, waiting in now["waiting"].items():
        oldest = f"{now['oldest_seconds'].get(lane, 0):.1f} s" if waiting else ""
        hour = now["latencies"].get(lane)
        took = [f"{hour[name]:.2f} s" for name in ("p50", "p99")] if hour else []
        lanes.add_row(lane, str(waiting), oldest, *took)
    parts: list[Any] = [about, "", lanes]
    if now["warm"]:
        warm = Table("warm picture", "memory", "segmenter", "", box=None, pad_edge=False)
        for one in now["warm"][:SHOWN_PICTURES]:
            looked_at = "looked at" if one["pinned"] else ""
            warm.add_row(one["image"][:12], in_units(one["nbytes"]), escape(one["segmenter"]), looked_at)
        parts += ["", warm]
        if len(now["warm"]) > SHOWN_PICTURES:
            parts.append(f"and {len(now['warm']) - SHOWN_PICTURES} more")
    return Group(*parts)


def _lines(now: Mapping[str, Any]) -> dict[str, str]:
    warm = sum(one["nbytes"] for one in now["warm"])
    asked = now["hits"] + now["disk_hits"] + now["misses"]
    rates = ", ".join(
        f"{100 * now[name] / asked:.0f} % {said}"
        for name, said in (("hits", "in memory"), ("disk_hits", "on disk"), ("misses", "encoded first"))
        if asked
    )
    device = now["device_bytes"]
    free, total = now["device_free_bytes"] or 0, now["device_total_bytes"] or 0
    steps = ", ".join(f"{name} {count} times" for name, count in now["memory_steps"].items() if count)
    loaded = [one["version"] for one in now["segmenters"] if one["loaded"]]
    return {
        "device": now["device"],
        "model": now["model_version"],
        "segmenters": ", ".join(loaded),
        "words": ", ".join(_model(one) for one in now["vlms"] if one["loaded"]),
        "warm": f"{len(now['warm'])} pictures, {in_units(warm)} of {in_units(now['budget_bytes'])}",
        "on disk": f"{in_units(now['store_bytes'])} of {in_units(now['store_budget_bytes'])}",
        "memory": f"engine {in_units(now['process_bytes'])}"
        + (f", device {in_units(device)} ({in_units(free)} of {in_units(total)} free)" if device is not None else ""),
        "clicks": f"{asked}: {rates}" if asked else "none yet",
        "encodings": f"{now['encodings']}; {now['evictions']} evicted, {now['superseded']} superseded, "
        f"{now['dropped_preloads']} preloads dropped",
        "ran short": steps,
    }


def _model(one: Mapping[str, Any]) -> str:
    writing = "" if one["writing"] is None else f", writing ({one['writing']} tokens)"
    return f"{one['version']}, {in_units(one['nbytes'])}{writing}"
