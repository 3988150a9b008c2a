"""Two hosts on one wire: network namespaces of this machine that reach each other and nothing else."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tator_ml.running.processes import stop_group

WIRE = "wire"
NAMES = Path("/etc/netns")
"""Where ``ip netns exec`` looks for a host's own files of ``/etc``."""
NEW_NETWORK = 0x40000000  # CLONE_NEWNET; os.setns comes with Python 3.12
NETWORK = Path("/proc/thread-self/ns/net")


@dataclass(frozen=True)
class Host:
    """A network namespace.

    Attributes:
        namespace: its name.
        address: on the wire.
    """

    namespace: str
    address: str

    @property
    def wrapper(self) -> tuple[str, ...]:
        """Words before a command line that let it run here, with the names of both hosts in its ``/etc/hosts``."""
        return ("ip", "netns", "exec", self.namespace)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Be on this host with the calling thread: its connections, and the processes that it starts."""
        with NETWORK.open() as before:
            _enter(Path("/run/netns", self.namespace))
            try:
                yield
            finally:
                _enter(Path(f"/proc/self/fd/{before.fileno()}"))

    def received(self) -> int:
        """Bytes that have come over the wire, headers of its packets included."""
        with self.inside():
            lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.strip().startswith(f"{WIRE}:"))

    @contextmanager
    def running(
        self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None, patience: float = 5.0
    ) -> Iterator[subprocess.Popen[bytes]]:
        """A process on this host, stopped in the end with its group."""
        with log.open("ab") as stream:
            process = subprocess.Popen(
                [*self.wrapper, *command], env=environment, cwd=log.parent,
                stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True,
            )  # fmt: skip
        try:
            yield process
        finally:
            stop_group(process.pid, patience)
            process.wait(10)


def _enter(namespace: Path) -> None:
    with namespace.open() as file:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(file.fileno(), NEW_NETWORK):
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")


def why_not() -> str | None:
    """Why no namespaces can be made here; None where they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "there is no ip; on Debian: apt-get install iproute2"
    trial = f"tator-{os.getpid()}-trial"
    made = subprocess.run(["ip", "netns", "add", trial], capture_output=True, text=True)
    if made.returncode:
        return f"no network namespace can be made: {made.stderr.strip()}"
    _ip("netns", "delete", trial)
    return None


@contextmanager
def linked(names: Mapping[str, str]) -> Iterator[tuple[Host, ...]]:
    """Two hosts on one wire.

    Args:
        names: of each host, by which both find it, with its address.

    Yields:
        The hosts in the same order.
    """
    known = "127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in names.items())
    hosts = tuple(Host(f"tator-{os.getpid()}-{name}", address) for name, address in names.items())
    with ExitStack() as stack:
        stack.callback(_remove_if_empty, NAMES)
        for host in hosts:
            _ip("netns", "add", host.namespace)
            stack.callback(_ip, "netns", "delete", host.namespace)  # the wire ends with it
            files = NAMES / host.namespace
            files.mkdir(parents=True)
            stack.callback(shutil.rmtree, files)
            (files / "hosts").write_text(known)
        one, other = (("netns", host.namespace) for host in hosts)
        _ip("link", "add", WIRE, *one, "type", "veth", "peer", "name", WIRE, *other)
        for host in hosts:
            _ip("-n", host.namespace, "address", "add", f"{host.address}/24", "dev", WIRE)
            for device in ("lo", WIRE):
                _ip("-n", host.namespace, "link", "set", device, "up")
        yield hosts


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
