"""What stands between two hosts: an SSH tunnel or TLS proxies, by the files that the documentation shows."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from deploy.compose import ROOT

from ..jobs.conftest import until
from .hosts import Host

PROXY = ROOT / "deploy" / "proxy"
TUNNEL = ROOT / "deploy" / "systemd" / "tator-tunnel.service"
NGINX = """\
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    {paths}
{server}
}}
"""
NGINX_PATHS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def program(name: str) -> str | None:
    """Where a server lies; some are not on everybody's path."""
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")


@contextmanager
def tunnel(near: Host, far: Host, folder: Path) -> Iterator[None]:
    """The unit's own command on the near host, to an SSH server on the far one; keys of their own."""
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
    public = (folder / "host.pub").read_text()
    (folder / "known_hosts").write_text(f"[{far.address}]:2222 {public}")
    (folder / "sshd_config").write_text(
        f"ListenAddress {far.address}:2222\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\n"
        "PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
    )
    (folder / "ssh_config").write_text(
        f"Host gpu.example\n  HostName {far.address}\n  Port 2222\n  IdentityFile {folder}/user\n"
        f"  IdentitiesOnly yes\n  UserKnownHostsFile {folder}/known_hosts\n"
    )
    line = next(one for one in TUNNEL.read_text().splitlines() if one.startswith("ExecStart="))
    command = shlex.split(line.removeprefix("ExecStart=").replace("tator@", f"{getpass.getuser()}@"))
    command[1:1] = ["-F", str(folder / "ssh_config")]
    with (
        _separation(),
        far.running([str(program("sshd")), "-D", "-e", "-f", str(folder / "sshd_config")], folder / "sshd.log"),
    ):
        _listens(far, far.address, 2222)
        with near.running(command, folder / "ssh.log"):
            _listens(near, "127.0.0.1", 9090)
            _listens(far, "127.0.0.1", 8080)
            yield


@contextmanager
def _separation() -> Iterator[None]:
    """The empty folder that sshd wants and that its service makes at boot."""
    folder = Path("/run/sshd")
    made = not folder.exists()
    folder.mkdir(exist_ok=True)
    try:
        yield
    finally:
        if made:
            folder.rmdir()


def certificate(folder: Path, names: Sequence[str]) -> None:
    """A self-signed certificate, ``tator.pem`` and ``tator.key``, for all names."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", f"/CN={names[0]}", "-addext", "subjectAltName=" + ",".join(f"DNS:{name}" for name in names),
         "-keyout", folder / "tator.key", "-out", folder / "tator.pem"],
        check=True, capture_output=True,
    )  # fmt: skip


@contextmanager
def caddy(host: Host, file: str, folder: Path) -> Iterator[None]:
    """Caddy on a host with a configuration of ``deploy/proxy``, whose certificate lies in a folder."""
    (folder / file).write_text((PROXY / file).read_text().replace("/etc/ssl/", f"{folder}/"))
    environment = {**os.environ, "XDG_DATA_HOME": str(folder / "data"), "XDG_CONFIG_HOME": str(folder / "config")}
    command = [str(program("caddy")), "run", "--adapter", "caddyfile", "--config", str(folder / file)]
    with host.running(command, folder / f"{file}.log", environment):
        _listens(host, host.address, 443)
        yield


@contextmanager
def nginx(host: Host, folder: Path) -> Iterator[None]:
    """Likewise nginx, whose file is one ``server`` block."""
    server = (PROXY / "nginx.conf").read_text().replace("/etc/ssl/", f"{folder}/")
    paths = " ".join(f"{name}_temp_path {folder}/{name};" for name in NGINX_PATHS)
    (folder / "nginx-whole.conf").write_text(NGINX.format(folder=folder, paths=paths, server=server))
    command = [str(program("nginx")), "-p", str(folder), "-c", str(folder / "nginx-whole.conf")]
    with host.running(command, folder / "nginx.log"):
        _listens(host, host.address, 443)
        yield


def _listens(host: Host, address: str, port: int) -> None:
    def reached() -> bool:
        try:
            socket.create_connection((address, port), 1).close()
        except OSError:
            return False
        return True

    with host.inside():
        until(reached, 20)
