"""Child processes that do hostile work: each may be killed at any time, and the next one takes its place.

Knows processes, pipes and time; what is asked and answered is bytes to it. The hard idea is that a child may hang,
grow, crash or write rubbish at any byte, and that all of it ends the same way: the one who asked gets `Lost` with a
reason that can be shown, the child is gone, and the next request starts another.

A request and an answer are a length (8 bytes, big-endian) and that many bytes. What a child says first, unasked,
is an empty answer; or, when it can never work here, why not.
"""

import signal
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from typing import IO, Final

from mailkeep.errors import ToolMissing

START_S: Final = 120  # to import what it needs, on a busy machine
ANSWER_MAX: Final = 1 << 30
OUT_OF_MEMORY: Final = 77  # the exit code of a child that says so itself
_LENGTH: Final = struct.Struct(">Q")


class Lost(Exception):
    """The child could not do it, and is gone. The text says why, for people."""


def read_frame(source: IO[bytes]) -> bytes:
    """A request or an answer. Raises EOFError."""
    head = source.read(_LENGTH.size)
    if len(head) != _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    if length > ANSWER_MAX:
        raise EOFError
    data = source.read(length)
    if len(data) != length:
        raise EOFError
    return data


def write_frame(out: IO[bytes], data: bytes) -> None:
    """A request or an answer, from the one who makes it."""
    out.write(_LENGTH.pack(len(data)))
    out.write(data)
    out.flush()


class Child:
    """One child at a time, started when it is first asked. `code` is Python that it runs. One thread may use it."""

    def __init__(self, code: str) -> None:
        self._code = code
        self._process: subprocess.Popen[bytes] | None = None
        self._late = False
        self._stopped = False

    def ask(self, request: bytes, *, timeout_s: float) -> bytes:
        """Its answer. Raises Lost; ToolMissing when it says that it can never work here."""
        if self._stopped:
            raise Lost("the export was stopped")
        if self._process is None:
            self._start()
        return self._exchange(request, timeout_s)

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", self._code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the parent, which decides when it is over
        )
        missing = self._exchange(None, START_S)
        if missing:
            self.close()
            raise ToolMissing(missing.decode("utf-8", "replace"))

    def _exchange(self, request: bytes | None, timeout_s: float) -> bytes:
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        self._late = False
        timer = threading.Timer(timeout_s, self._kill_late, (process,))
        timer.daemon = True
        timer.start()
        try:
            if request is not None:
                write_frame(process.stdin, request)
            return read_frame(process.stdout)
        except (OSError, EOFError):
            raise Lost(self._end()) from None
        finally:
            timer.cancel()

    def _kill_late(self, process: "subprocess.Popen[bytes]") -> None:
        self._late = True
        process.kill()

    def _end(self) -> str:
        process, self._process = self._process, None
        assert process is not None
        process.kill()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):  # what it did not read any more
                if pipe is not None:
                    pipe.close()
        return self._why(process.wait())

    def _why(self, code: int) -> str:
        if self._late or code == -signal.SIGXCPU:
            return "it took too long"
        if code == OUT_OF_MEMORY:
            return "it needed too much memory"
        if code in (-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGKILL):  # an allocation failed, a stack ran over
            return "the program that lays it out crashed or ran out of memory"
        return "the program that lays it out ended"

    def stop(self) -> None:
        """End it for good: who waits for it, and who asks after this, is told `Lost`. Any thread may call."""
        self._stopped = True
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """End the child, whatever it does. Harmless when there is none."""
        if self._process is not None:
            self._end()
