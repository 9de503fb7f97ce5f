"""Messages hashed and rendered by a child process, ahead of the thread that writes them.

`render` is pure Python and most of what a pull costs; while it runs no other thread of the process does. A child takes
a batch of messages and answers with what `Staged` keeps of each: for the parent a tenth of the work, and the rest of it
on another core. Knows processes and `Staged`, nothing of accounts; what goes over the pipes is `mail.rendering`'s.

The hard idea is that nothing may depend on the child. While it starts, a tenth of a second, batches may be done here;
when it dies, or cannot be started, or says what cannot be read, so are the batches that it had, and all that follow.
"""

import fcntl
import select
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import msgspec

from mailkeep.mail.rendering import READY, Answer, receive, send
from mailkeep.store.staging import Staged

WORTH_IT: Final = 32  # messages; fewer are done sooner than asked for
START_S: Final = 0.2  # how long a batch waits for the child to be ready
PIPE_SIZE: Final = 1 << 20
_CHILD: Final = (
    "import signal, sys\n"
    "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"  # the parent decides when it is over
    "from mailkeep.mail.rendering import work\n"
    "work(open(0, 'rb', 1 << 18), sys.stdout.buffer)\n"
)


class Renderer:
    """See the module. Any thread may call; two batches at a time are with the child, others wait. `close` it."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._ready = False
        self._lost = False
        # Held one after the other, the second taken before the first is let go: the next batch is sent while the
        # answer to this one is awaited, and answers are taken in the order of the batches.
        self._sending = threading.Lock()
        self._receiving = threading.Lock()
        self._ending = threading.Lock()

    def start(self, *, wait: bool = False) -> None:
        """Start the child, as soon as it is known that there will be much to do; with `wait` until it is ready."""
        with self._sending:
            self._begin()
            if wait and self._child is not None:
                self._hear_ready(self._child, None)

    def stage(self, messages: Sequence[bytes]) -> list[Staged]:
        """Each message, ready to be appended, in order. Starts the child if nobody did.

        Blocks: in a thread, best while the batch before is written.
        """
        answer = self._ask(messages) if len(messages) >= WORTH_IT else None
        if answer is None or len(answer) != len(messages):
            return [Staged.of(data) for data in messages]
        return [
            Staged(data, rendered, sha256=sha256, crc=crc)
            for data, (sha256, crc, rendered) in zip(messages, answer, strict=True)
        ]

    def _ask(self, messages: Sequence[bytes]) -> Answer | None:
        child = None
        try:
            with self._sending:
                self._begin()
                child = self._child
                if child is None or not (self._ready or self._hear_ready(child, START_S)):
                    return None
                assert child.stdin is not None and child.stdout is not None
                send(child.stdin, messages)
                self._receiving.acquire()
            try:
                return receive(child.stdout)
            finally:
                self._receiving.release()
        except (OSError, EOFError, ValueError, msgspec.MsgspecError):  # ValueError: closed by another batch's failure
            self._end()
            return None

    def _begin(self) -> None:
        if self._child is None and not self._lost:
            try:
                self._child = _start()
            except OSError:
                self._lost = True

    def _hear_ready(self, child: "subprocess.Popen[bytes]", timeout_s: float | None) -> bool:
        assert child.stdout is not None
        if not self._ready and select.select([child.stdout], [], [], timeout_s)[0]:
            self._ready = child.stdout.read(1) == READY
            if not self._ready:
                self._end()
        return self._ready

    def close(self) -> None:
        """End the child. Harmless when there is none; batches after it are done here."""
        self._end()

    def _end(self) -> None:
        with self._ending:
            self._lost = True
            child, self._child = self._child, None
            if child is not None:
                child.kill()  # first, or who closes would wait for who writes
                for pipe in (child.stdin, child.stdout):
                    with suppress(OSError):  # what it did not read any more
                        if pipe is not None:
                            pipe.close()
                child.wait()


def _start() -> subprocess.Popen[bytes]:
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", _CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    for pipe in (child.stdin, child.stdout):
        with suppress(OSError, AttributeError):  # beyond what the user may have, or not this system's
            if pipe is not None:
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    return child
