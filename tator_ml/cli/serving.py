"""Verbs of the backend: ``up``, ``serve``, ``engine``, ``worker``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tator_sdk.settings import Settings

Port = Annotated[int | None, typer.Option(help="Port of the backend. Default: 9090, or TATOR_PORT.")]
Host = Annotated[str | None, typer.Option(help="Address to listen on; beyond loopback needs a password.")]
Home = Annotated[Path | None, typer.Option(help="Folder of everything Tator keeps.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 or mps. Default: TATOR_DEVICE.")]


def read_settings(**chosen: object) -> Settings:
    """Settings from the environment, with what was given on the command line instead."""
    return Settings.model_validate(
        {**Settings().model_dump(), **{name: value for name, value in chosen.items() if value is not None}}
    )


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command()(up)
    app.command()(serve)
    app.command()(engine)
    app.command()(worker)


def _prepare(settings: Settings) -> None:
    """Have a process log where it should, and a home to itself."""
    from tator_ml.running.logs import configure_logging
    from tator_sdk.files import private_folder

    configure_logging(settings)
    private_folder(settings.home)


def up(port: Port = None, host: Host = None, home: Home = None) -> None:
    """Start Redis, engine, backend and worker for daily use, and keep them running.

    They run until Ctrl-C. Connect a project with `tator connect --project N`.
    """
    from tator_ml.running.processes import Supervisor, termination_as_exit
    from tator_ml.up import start_parts
    from tator_sdk.files import private_folder

    settings = read_settings(port=port, host=host, home=home)
    private_folder(settings.home)  # before anything is made in it
    console = Console()
    with termination_as_exit(), Supervisor(settings.home, lambda said: console.print(f"  {said}")) as parts:
        try:
            settings = start_parts(settings, parts)
            console.print(f"[bold green]Tator is up[/] at {settings.backend_url} (Ctrl-C stops it)")
            console.print(f"  its dashboard: {settings.backend_url}/tator/")
            parts.watch()
        except KeyboardInterrupt:
            console.print("stopping…")


def serve(port: Port = None, host: Host = None, home: Home = None) -> None:
    """Run the web process alone: Label Studio's wire and the strip."""
    from tator_ml.web.server import serve as serve_web

    settings = read_settings(port=port, host=host, home=home)
    _prepare(settings)
    serve_web(settings)


def engine(
    home: Home = None,
    device: Device = None,
    address: Annotated[
        str | None, typer.Option(help="Socket path or host:port to listen on. Default: TATOR_ENGINE_ADDRESS.")
    ] = None,
) -> None:
    """Run an engine alone: the process that holds the models of one device.

    Example: tator engine --device cuda:1 --address /var/lib/tator/run/engine-1.sock
    """
    from tator_ml.engine.loading import load_engine
    from tator_ml.engine.server import EngineServer
    from tator_ml.running.processes import termination_as_exit

    settings = read_settings(home=home, device=device, engine_address=address)
    _prepare(settings)
    server = EngineServer(settings, lambda: load_engine(settings))
    with termination_as_exit():
        try:
            server.serve()
        finally:
            server.close()


def worker(home: Home = None, device: Device = None) -> None:
    """Run a worker alone: it takes jobs from Redis, one at a time.

    With a device it takes the jobs that ask for it, and those that ask for none; without one, all that its host has.

    Example: tator worker --device cuda:1
    """
    from tator_ml.jobs.worker import run_worker

    settings = read_settings(home=home, device=device)
    _prepare(settings)
    run_worker(settings)
