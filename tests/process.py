"""What every test that starts a foreign process needs: free ports, waiting without sleeping, asking for packages.

`require_package` is the one place that decides what happens when a stranger's client is not on this machine: as root
with apt it is installed (once a run), else the test is skipped with a line that says what to install.
"""

import errno
import functools
import os
import shutil
import socket
import subprocess
import time

import pytest


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, for programs that cannot be told "any port"."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def wait_for_port(port: int, process: subprocess.Popen[bytes], *, timeout_s: float) -> None:
    """Return when the port accepts; raise when the process ends or the time is over. Waits on the process, not idly."""
    deadline = time.monotonic() + timeout_s
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        try:
            code = process.wait(timeout=0.02)
        except subprocess.TimeoutExpired:
            if time.monotonic() > deadline:
                raise TimeoutError(f"port {port} does not accept after {timeout_s} s") from None
        else:
            raise OSError(errno.ECHILD, f"the process ended with {code}")


def require_package(program: str, *packages: str) -> str:
    """The path of `program`; installs its Debian packages when it is absent and we may, else skips, plainly."""
    found = _find(program)
    if found is None:
        reason = _install(packages)
        found = _find(program)
        if found is None:
            pytest.skip(f"{program} is not here: install {' '.join(packages)} ({reason})")
    return found


def _find(program: str) -> str | None:
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin")


@functools.cache
def _install(packages: tuple[str, ...]) -> str:
    if os.geteuid() != 0:
        return "not root, so it was not installed here"
    if shutil.which("apt-get") is None:
        return "no apt-get on this machine"
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *packages]):
        done = subprocess.run(
            ["apt-get", *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=300,
            check=False,
        )
        if done.returncode != 0:
            return f"apt-get {command[0]} failed: {done.stderr.decode(errors='replace').strip()[-200:]}"
    return "installed by apt-get, yet not found"
