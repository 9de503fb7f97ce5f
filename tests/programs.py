"""Strangers' programs: which ones the tests drive, how they are found, installed, and waited for.

    python -m tests.programs        install by apt what is missing (as root), else say what to install

Tests only look: a missing program skips its test, with the package's name in the reason. Installing is done once,
before pytest, by `make test` and `make bench`. Packages are installed without starting their services: a test must not
leave a second mail server listening on somebody's machine.
"""

import errno
import glob
import os
import shutil
import socket
import subprocess
import sys
import time
import unittest
from pathlib import Path

PACKAGES = {
    "dovecot": ("dovecot-imapd", "dovecot-pop3d", "dovecot-lmtpd"),
    "curl": ("curl", "ca-certificates"),
    "mbsync": ("isync",),
    "offlineimap": ("offlineimap3",),
    "getmail": ("getmail6",),
    "fetchmail": ("fetchmail",),
    "mutt": ("mutt",),
    "cc": ("gcc", "libc6-dev"),
    "chromium": ("chromium",),
    "soffice": ("libreoffice-writer",),
    "readpst": ("pst-utils",),
    "pffexport": ("pff-tools",),
    "msgconvert": ("libemail-outlook-message-perl", "libemail-address-perl"),  # only recommended, and needed
    "qpdf": ("qpdf",),
    "pdftotext": ("poppler-utils",),
    "antiword": ("antiword",),
    "catdoc": ("catdoc",),
    "node": ("nodejs",),
    "npm": ("npm",),
    "unzip": ("unzip",),
    "fc-list": ("fontconfig",),
}
# What is no program: known by a file that it brings.
FILES = {
    "Pango": ("/usr/lib/*/libpangoft2-1.0.so.0", ("libpango-1.0-0", "libpangoft2-1.0-0", "libharfbuzz-subset0")),
    "plain fonts": ("/usr/share/fonts/truetype/noto/NotoSans-Regular.ttf", ("fonts-noto-core",)),
    "CJK fonts": ("/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc", ("fonts-noto-cjk",)),
    "emoji": ("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf", ("fonts-noto-color-emoji",)),
}
PATH = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
POLICY = Path("/usr/sbin/policy-rc.d")


class ProgramMissing(unittest.SkipTest):
    """A stranger's program is not on this machine. pytest reports the test as skipped, with this text."""


def find_program(name: str) -> str:
    """The path of a program of `PACKAGES`; raises ProgramMissing."""
    found = shutil.which(name, path=PATH)
    if found is None:
        raise ProgramMissing(f"{name} is not on this machine: apt-get install {' '.join(PACKAGES[name])}")
    return found


def need_files(*names: str) -> None:
    """Raises ProgramMissing when libraries or fonts of `FILES` are not there."""
    for name in names:
        if _is_missing(name):
            raise ProgramMissing(f"{name}: apt-get install {' '.join(_packages(name))}")


def _is_missing(name: str) -> bool:
    if name in FILES:
        return not glob.glob(FILES[name][0])
    return shutil.which(name, path=PATH) is None


def _packages(name: str) -> tuple[str, ...]:
    return FILES[name][1] if name in FILES else PACKAGES[name]


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


def install_missing(names: list[str]) -> int:
    """Install the packages of what is missing, where we may; say plainly what stays missing. Never fails the run."""
    missing = [name for name in names if _is_missing(name)]
    if not missing:
        return 0
    packages = [package for name in missing for package in _packages(name)]
    command = f"apt-get install --no-install-recommends {' '.join(packages)}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        why = "not root" if shutil.which("apt-get") else "no apt-get here"
        print(
            f"Missing: {', '.join(missing)} ({why}). Their tests are skipped. To run them: {command}", file=sys.stderr
        )
        return 0
    print(f"Installing for the tests: {' '.join(packages)}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    arguments = ["-y", "-qq", "-o", "Dpkg::Use-Pty=0", "--no-install-recommends"]
    held = _hold_services()
    try:
        for step in (["apt-get", "update", "-qq"], ["apt-get", "install", *arguments, *packages]):
            done = subprocess.run(step, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
            if done.returncode != 0:
                tail = done.stderr.decode(errors="replace").strip()[-500:]
                print(f"{' '.join(step[:2])} failed; tests that need {missing} are skipped.\n{tail}", file=sys.stderr)
                return 0
    finally:
        if held:
            POLICY.unlink(missing_ok=True)
    return 0


def _hold_services() -> bool:
    """Forbid packages to start their services (invoke-rc.d's policy layer), unless the machine has its own rule."""
    if POLICY.exists():
        return False
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    return True


if __name__ == "__main__":
    sys.exit(install_missing(sys.argv[1:] or [*PACKAGES, *FILES]))
