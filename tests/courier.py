"""A real Courier IMAP on loopback: "INBOX." before every name, "." between levels, Maildir++, no special use.

Debian's package cannot be installed beside Dovecot's, so it is unpacked beside it, into a cache of the user's:

    python -m tests.courier         download and unpack, once (apt-get download, dpkg -x; installs nothing)

Courier's own log-in needs its authentication daemon; here this module says the greeting, takes the log-in, and then
hands the connection to Courier's `imapd`, just as Courier's `imaplogin` does: all that follows is Courier's.

    with Courier(directory) as courier:
        imaplib.IMAP4("127.0.0.1", courier.port).login("ann", courier.password)

Any user name logs in; its mailbox is made on first use.
"""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.programs import ProgramMissing, find_program

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mailkeep-tests" / "courier"
PACKAGES = (
    *("courier-imap", "courier-base", "courier-authlib", "libcourier-unicode4", "libgamin0", "libgdbm6", "libidn12"),
    "libpcre3",
)
CAPABILITY = "IMAP4rev1 UIDPLUS CHILDREN NAMESPACE THREAD=ORDEREDSUBJECT THREAD=REFERENCES SORT QUOTA IDLE"
# It asks for gamin, a daemon that tells of changed files, and waits a second for it at each log-in: none is there.
NO_GAMIN = "int FAMErrno;\nint FAMOpen(void *connection) { return -1; }\n"
_LOGIN = re.compile(rb'(\S+) LOGIN "?([^ "]+)"? "?([^ "\r\n]+)"?\r\n', re.IGNORECASE)
_COMMAND = re.compile(rb"(\S+) (\S+)[^\r\n]*\r\n")


def unpack(root: Path = CACHE) -> None:
    """Download the packages and unpack them below `root`."""
    debs = root / "debs"
    shutil.rmtree(root, ignore_errors=True)
    debs.mkdir(parents=True)
    subprocess.run(["apt-get", "-q", "download", *PACKAGES], cwd=debs, check=True, stdin=subprocess.DEVNULL)
    for deb in sorted(debs.glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(deb), str(root / "root")], check=True)
    with contextlib.suppress(ProgramMissing):
        compiler = find_program("cc")
        (root / "fam.c").write_text(NO_GAMIN)
        subprocess.run([compiler, "-shared", "-fPIC", "-o", str(root / "fam.so"), str(root / "fam.c")], check=True)


class Courier:
    """A running Courier. Raises ProgramMissing where it was not unpacked."""

    host = "127.0.0.1"
    password = "secret"

    def __init__(self, directory: Path, *, root: Path = CACHE) -> None:
        self._bin = root / "root" / "usr" / "bin"
        if not (self._bin / "imapd").exists():
            raise ProgramMissing("Courier is not on this machine: python -m tests.courier")
        libraries = {path.parent for path in (root / "root").rglob("*.so*")}
        self._environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(sorted(map(str, libraries)))}
        if (root / "fam.so").exists():
            self._environment["LD_PRELOAD"] = str(root / "fam.so")
        self.directory = directory
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._running: list[subprocess.Popen[bytes]] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connection:
                self._log_in(connection)

    def _log_in(self, connection: socket.socket) -> None:
        connection.settimeout(20)
        connection.sendall(b"* OK [CAPABILITY " + CAPABILITY.encode() + b"] Courier-IMAP ready.\r\n")
        while True:
            line = b""
            while not line.endswith(b"\r\n"):
                octet = connection.recv(1)  # what follows the log-in is Courier's to read
                if not octet:
                    return
                line += octet
            login = _LOGIN.fullmatch(line)
            command = _COMMAND.fullmatch(line)
            if login is not None and login[3].decode() == self.password:
                connection.settimeout(None)
                self._hand_over(connection, login[1].decode(), login[2].decode())
                return
            tag, verb = (command[1], command[2].upper()) if command is not None else (b"*", b"")
            if verb == b"CAPABILITY":
                connection.sendall(
                    b"* CAPABILITY " + CAPABILITY.encode() + b"\r\n" + tag + b" OK CAPABILITY completed\r\n"
                )
            elif verb == b"LOGOUT":
                connection.sendall(b"* BYE Courier-IMAP server shutting down\r\n" + tag + b" OK LOGOUT completed\r\n")
                return
            else:
                connection.sendall(tag + b" NO Login failed.\r\n")

    def _hand_over(self, connection: socket.socket, tag: str, user: str) -> None:
        home = self.directory / user
        if not home.exists():
            home.mkdir(parents=True)
            maker = self._bin / "maildirmake.courier"
            subprocess.run([maker, home / "Maildir"], env=self._environment, check=True, timeout=20)
        environment = {
            **self._environment,
            "AUTHENTICATED": user,
            "AUTHADDR": user,
            "MAILDIR": "Maildir",
            "TCPREMOTEIP": "127.0.0.1",
            "TCPREMOTEPORT": "1",
            "PROTOCOL": "IMAP",
            "IMAP_CAPABILITY": CAPABILITY,
            "IMAP_KEYWORDS": "1",
            "IMAP_USELOCKS": "0",
            "IMAP_EMPTYTRASH": "",
            "IMAPLOGINTAG": tag,
        }
        process = subprocess.Popen(
            [self._bin / "imapd", "Maildir"],
            cwd=home,
            env=environment,
            stdin=connection,
            stdout=connection,
            stderr=subprocess.DEVNULL,
        )
        self._running.append(process)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(timeout=30)
        for process in self._running:
            if process.poll() is None:
                process.terminate()
            process.wait(timeout=20)


if __name__ == "__main__":
    try:
        if not (CACHE / "root" / "usr" / "bin" / "imapd").exists():
            unpack()
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"Courier cannot be had here: {error}; its tests are skipped", file=sys.stderr)
