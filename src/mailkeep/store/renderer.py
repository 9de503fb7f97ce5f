"""Messages hashed and rendered by a child process, ahead of the thread that writes them.

`render` is pure Python and most of what a pull costs; while it runs no other thread of the process does. A child takes
a batch of messages and answers with what `Staged` keeps of each: for the parent a tenth of the work, and the rest of it
on another core. Knows pipes and `Staged`, nothing of accounts.

The hard idea is that nothing may depend on the child. While it starts, a quarter of a second, batches are done here;
when it dies, or cannot be started, or says what cannot be read, so is the batch that it had, and all that follow.
"""

import hashlib
import select
import signal
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Final

import msgspec

from mailkeep.mail.structure import Rendered, render
from mailkeep.store.staging import Staged

WORTH_IT: Final = 32  # messages; fewer are done sooner than asked for
_READY: Final = b"R"
_LENGTH: Final = struct.Struct(">Q")
_Answer = list[tuple[bytes, int, Rendered]]  # SHA-256, CRC-32, what render says
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Answer).decode


class Renderer:
    """See the module. Any thread may call; one batch at a time is with the child, others wait. `close` it."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._ready = False
        self._lost = False
        self._lock = threading.Lock()

    def start(self, *, wait: bool = False) -> None:
        """Start the child, as soon as it is known that there will be much to do; with `wait` until it is ready."""
        with self._lock:
            self._begin()
            if wait and self._child is not None:
                self._hear_ready(None)

    def stage(self, messages: Sequence[bytes]) -> list[Staged]:
        """Each message, ready to be appended, in order. Starts the child if nobody did.

        Blocks: in a thread, best while the batch before is written.
        """
        if len(messages) >= WORTH_IT:
            with self._lock:
                answer = None if self._lost else self._ask(messages)
            if answer is not None:
                return [
                    Staged(data, rendered, sha256=sha256, crc=crc)
                    for data, (sha256, crc, rendered) in zip(messages, answer, strict=True)
                ]
        return [Staged.of(data) for data in messages]

    def _ask(self, messages: Sequence[bytes]) -> _Answer | None:
        self._begin()
        if self._child is None or not (self._ready or self._hear_ready(0)):
            return None
        asked, told = self._child.stdin, self._child.stdout
        assert asked is not None and told is not None
        try:
            _send(asked, messages)
            answer = _decode(_receive(told))
            if len(answer) == len(messages):
                return answer
        except (OSError, EOFError, msgspec.MsgspecError):
            pass
        self._end()
        return None

    def _begin(self) -> None:
        if self._child is None and not self._lost:
            try:
                self._child = _start()
            except OSError:
                self._lost = True

    def _hear_ready(self, timeout_s: float | None) -> bool:
        assert self._child is not None and self._child.stdout is not None
        if select.select([self._child.stdout], [], [], timeout_s)[0]:
            self._ready = self._child.stdout.read(1) == _READY
            if not self._ready:
                self._end()
        return self._ready

    def close(self) -> None:
        """End the child. Harmless when there is none; batches after it are done here."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        self._lost = True
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            for pipe in (child.stdin, child.stdout):
                with suppress(OSError):  # what it did not read any more
                    if pipe is not None:
                        pipe.close()
            child.wait()


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "mailkeep.store.renderer"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def _send(pipe: IO[bytes], messages: Sequence[bytes]) -> None:
    pipe.write(_LENGTH.pack(len(messages)) + b"".join(_LENGTH.pack(len(data)) for data in messages))
    pipe.writelines(messages)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> bytes:
    (length,) = _LENGTH.unpack(_exactly(pipe, _LENGTH.size))
    return _exactly(pipe, length)


def _exactly(pipe: IO[bytes], size: int) -> bytes:
    data = pipe.read(size)
    if len(data) != size:
        raise EOFError
    return data


def work(asked: IO[bytes], told: IO[bytes]) -> None:
    """The child: batch after batch, until the parent is gone."""
    with suppress(EOFError, BrokenPipeError):
        told.write(_READY)
        told.flush()
        while True:
            (count,) = _LENGTH.unpack(_exactly(asked, _LENGTH.size))
            sizes = struct.unpack(f">{count}Q", _exactly(asked, 8 * count))
            messages = [_exactly(asked, size) for size in sizes]
            answer = _encode([(hashlib.sha256(data).digest(), zlib.crc32(data), render(data)) for data in messages])
            told.write(_LENGTH.pack(len(answer)) + answer)
            told.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when it is over
    work(sys.stdin.buffer, sys.stdout.buffer)
