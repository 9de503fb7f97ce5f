"""The real `mailkeep serve` process on loopback, for tests from outside.

It knows the command line and the lines that `serve` prints (`listening PROTOCOL HOST:PORT`, then `ready`), and
nothing of the package: everything goes through the program that a user runs, at `.venv/bin/mailkeep`.

    with Server(root / "data", users={"ann@example.org": "secret"}) as server:
        imaplib.IMAP4(server.host, server.port("imap"))
"""

import contextlib
import os
import queue
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

LISTENING = re.compile(r"^listening (\S+) (?:(\S+):(\d+)|(/\S+))$")
DOORS = ("imap", "imaps", "pop3", "pop3s", "lmtp")


def program() -> list[str]:
    """The command that a user would type, of the environment that runs the tests."""
    script = Path(sys.executable).with_name("mailkeep")
    return [str(script)] if script.exists() else [sys.executable, "-m", "mailkeep.cli.main"]


def run_command(
    *arguments: str, stdin: str | None = None, check: bool = True, timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run one `mailkeep` command to its end."""
    done = subprocess.run(
        [*program(), *arguments],
        input="" if stdin is None else stdin,
        text=True,
        capture_output=True,
        timeout=timeout_s,
        check=False,
    )
    if check and done.returncode != 0:
        raise AssertionError(f"mailkeep {' '.join(arguments)} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done


class Server:
    """A running `mailkeep serve`. `ports` maps a door's name to its port; `stderr` is all that it logged."""

    host = "127.0.0.1"

    def __init__(
        self,
        data: Path,
        *,
        users: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        doors: Sequence[str] = DOORS,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.data = data
        self.ports: dict[str, int] = {}
        self.log_path = data.parent / f"{data.name}.log"
        self._options = list(options)
        self._doors = tuple(doors)
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._lines: queue.Queue[str | None] = queue.Queue()
        for name, password in (users or {}).items():
            self.add_user(name, password)

    def add_user(self, name: str, password: str, *options: str) -> None:
        """Through the command line, as an administrator does, while the server runs or not."""
        run_command("user", "add", name, "--password-stdin", "--data", str(self.data), *options, stdin=password + "\n")

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def port(self, door: str) -> int:
        return self.ports[door]

    def start(self, *, timeout_s: float = 30) -> Self:
        """Start it and return once it has printed `ready`."""
        arguments = [*program(), "serve", "--data", str(self.data)]
        for door in self._doors:
            arguments += [f"--{door}", f"{self.host}:0"]
        self._lines = queue.Queue()
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*arguments, *self._options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self._environment,
            )
        self._reader = threading.Thread(target=self._read, args=(self._process, self._lines), daemon=True)
        self._reader.start()
        deadline = time.monotonic() + timeout_s
        try:
            while (line := self._lines.get(timeout=max(0.0, deadline - time.monotonic()))) != "ready":
                if line is None:
                    raise RuntimeError("it ended before it was ready")
                if found := LISTENING.match(line):
                    self.ports[found[1].lower()] = int(found[3] or 0)
        except (queue.Empty, RuntimeError) as error:
            self.kill()
            raise RuntimeError(f"mailkeep serve did not start: {error!r}\n{self.log()[-4000:]}") from error
        return self

    @staticmethod
    def _read(process: subprocess.Popen[str], lines: "queue.Queue[str | None]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line.strip())
        lines.put(None)

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def stop(self, *, timeout_s: float = 30) -> int:
        """Ask it to end (TERM) and return its exit code. One that does not end in time is killed and reported."""
        if self._process is None:
            return 0
        others = self._others()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"mailkeep serve did not end on TERM\n{self.log()[-4000:]}") from None
        self._finish()
        _wait_for_end(others)
        return code

    def kill(self, *, wait: bool = True) -> None:
        """As a crash would. Its other processes notice by themselves; `wait` returns when they have ended too."""
        if self._process is not None:
            others = self._others() if wait else []
            self._process.kill()
            self._process.wait(timeout=30)
            self._finish()
            _wait_for_end(others)

    def _others(self) -> list[int]:
        """Handles (pidfd) of the processes that the server has started."""
        handles = []
        for task in Path(f"/proc/{self.pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                handles += [os.pidfd_open(int(pid)) for pid in task.read_text().split()]
        return handles

    def _finish(self) -> None:
        assert self._process is not None and self._process.stdout is not None and self._reader is not None
        self._reader.join(timeout=30)
        self._process.stdout.close()
        self._process = None

    def memory(self, field: str = "VmRSS") -> int:
        """Bytes of memory of the server process (`VmRSS` now, `VmHWM` at most)."""
        return memory_of(self.pid, field)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if error is None:
            self.stop()
        else:
            self.kill()


def _wait_for_end(handles: list[int], timeout_s: float = 20) -> None:
    """Wait until the processes behind the handles have ended; a server that is gone must leave none behind."""
    deadline = time.monotonic() + timeout_s
    for handle in handles:
        ended, _, _ = select.select([handle], [], [], max(0.0, deadline - time.monotonic()))
        os.close(handle)
        assert ended, "a process of the server lives on after its parent"


def memory_of(pid: int, field: str = "VmRSS") -> int:
    """A memory figure of a process from /proc, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)
