"""A private PostgreSQL, which a Label Studio of many people needs: SQLite has one writer at a time.

Debian's ``postgresql`` must be installed; the server listens on loopback and ends with the block.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmarks.station import until
from tator_ml.running.processes import LOOPBACK, free_port, stop_group

USER = "postgres"


def programs() -> Path | None:
    """The folder of PostgreSQL's programs, the newest; None where it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    return found[-1].parent if found else None


@contextmanager
def private_postgres() -> Iterator[Mapping[str, str]]:
    """Run a server in a folder of its own; gives the variables by which Label Studio finds it.

    Raises:
        SystemExit: PostgreSQL is not installed, or does not start.
    """
    folder = programs()
    if folder is None:
        raise SystemExit("Install PostgreSQL first: apt-get install postgresql")
    with tempfile.TemporaryDirectory(dir="/tmp") as home:  # socket paths are short
        own: list[str] = []
        if os.geteuid() == 0:  # which it refuses to run as
            shutil.chown(home, USER)
            own = ["setpriv", f"--reuid={USER}", "--regid", USER, "--init-groups"]
        port, data = free_port(15432), Path(home) / "data"
        made = [*own, str(folder / "initdb"), "-D", str(data), "-U", USER, "--auth=trust", "--no-sync", "-E", "UTF8"]
        subprocess.run(made, cwd=home, check=True, stdout=subprocess.DEVNULL)
        options = ["-p", str(port), "-h", LOOPBACK, "-k", home, "-c", "max_connections=300"]
        log = (Path(home) / "log").open("wb")
        process = subprocess.Popen(
            [*own, str(folder / "postgres"), "-D", str(data), *options],
            cwd=home,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            ready = [str(folder / "pg_isready"), "-q", "-h", LOOPBACK, "-p", str(port)]
            until(lambda: subprocess.run(ready).returncode == 0, 30)
            yield {
                "DJANGO_DB": "default", "POSTGRE_USER": USER, "POSTGRE_PASSWORD": "", "POSTGRE_NAME": USER,
                "POSTGRE_HOST": LOOPBACK, "POSTGRE_PORT": str(port),
            }  # fmt: skip
        finally:
            stop_group(process.pid)
            process.wait(10)
            log.close()
