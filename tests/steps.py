"""The real program, killed or left without a disk at any step that it makes there; see `steps.c`, which counts them.

Two ways in. `command` runs the program that a user runs, in a process of its own. `Nursery` starts Python once, loads
the program and forks a child for each run: the same code with the same command line, three times as fast, so that
every step of a run can be tried. Either way the caller says in which step what happens, and is told how many there
were.
"""

import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from tests.programs import find_program
from tests.server import program

How = Literal["before", "after", "half", "full", "io"]
KILLS: tuple[How, ...] = ("before", "half", "after")
SOURCE = Path(__file__).with_name("steps.c")


@dataclass(frozen=True, slots=True)
class Run:
    """What became of a run. `code` below zero: ended by that signal."""

    code: int
    steps: int
    out: str
    err: str

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL

    @property
    def facts(self) -> dict[str, Any]:
        """The last line of what it said with --json."""
        found = json.loads(self.out.splitlines()[-1])
        assert isinstance(found, dict)
        return found


def build(directory: Path) -> Path:
    """Compile the library. Raises ProgramMissing without a compiler."""
    library = directory / "steps.so"
    arguments = [find_program("cc"), "-shared", "-fPIC", "-O2", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(arguments, check=True)
    return library


def command(library: Path, root: Path, *arguments: str, at: int = 0, how: How = "before") -> Run:
    """`mailkeep ARGUMENTS`, with the step `at` below `root` (0: none) as its last."""
    counter = library.with_name("count")
    counter.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "STEPS_ROOT": str(root),
        "STEPS_COUNT": str(counter),
        "STEPS_AT": str(at),
        "STEPS_HOW": how,
    }
    done = subprocess.run(
        [*program(), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment,
    )
    return Run(done.returncode, counted(counter), done.stdout, done.stderr)


def counted(counter: Path) -> int:
    return int(struct.unpack("q", counter.read_bytes()[:8])[0]) if counter.exists() else 0


class Nursery:
    """A process that is ready to be `mailkeep`, and forks whenever it is asked to. `tune`: see `CHILD`."""

    def __init__(self, library: Path, *, tune: str = "") -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="nursery-")
        self.place = Path(self._directory.name)
        self._process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(library), str(self.place), tune],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "LD_PRELOAD": str(library)},
            cwd=Path(__file__).resolve().parents[1],
        )

    def run(self, root: Path, *arguments: str, at: int = 0, how: How = "before") -> Run:
        """As `command`."""
        assert self._process.stdin is not None and self._process.stdout is not None
        (self.place / "count").unlink(missing_ok=True)
        print(json.dumps([str(root), at, how, list(arguments)]), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        assert answer, "the nursery has ended"
        out, err = ((self.place / name).read_text(errors="replace") for name in ("out", "err"))
        return Run(int(answer), counted(self.place / "count"), out, err)

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()
        self._directory.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


# Smaller batches make more of them out of few messages; all else is as users have it. Whoever is forked has no threads.
CHILD = """
import ctypes, gc, importlib, json, os, sys, threading
from pathlib import Path

library, place = ctypes.CDLL(sys.argv[1]), Path(sys.argv[2])
from mailkeep.cli import main
main.command_tree()
for name in ("pull", "pull_folder", "pop3_pull", "push", "migrate", "login", "imap_remote"):
    importlib.import_module("mailkeep.backup." + name)
import uvloop, apsw, mailkeep.store.check
exec(sys.argv[3])
gc.freeze()
for line in sys.stdin:
    root, at, how, arguments = json.loads(line)
    assert threading.active_count() == 1
    child = os.fork()
    if child == 0:
        (place / "pid").write_text(str(os.getpid()))
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(place / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        library.steps_arm(root.encode(), str(place / "count").encode(), ctypes.c_long(at), how.encode())
        code = 70
        try:
            code = main.run(arguments)
        finally:
            sys.stdout.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""
