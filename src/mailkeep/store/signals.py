"""Wake-ups between processes: "account 7 moved", and nothing more.

Each process that listens has a Unix datagram socket in root/run. They carry no data, so a lost one only delays: a slow
poll stands behind them (`Store.listen`). Addresses go by /proc/self/fd, since a socket's path must be shorter than 108
bytes and a store may lie anywhere.
"""

import contextlib
import os
import secrets
import socket
from pathlib import Path
from typing import Final

SEND_TIMEOUT_S: Final = 0.005  # a full queue means that the receiver will look anyway, if for another account
_BURST_MAX: Final = 1000


class Signals:
    """Sends to all other processes, and receives once `listen` was called. Sending is for any thread."""

    def __init__(self, run: Path) -> None:
        self._dir = os.open(run, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._name: str | None = None
        self._receiver: socket.socket | None = None
        self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sender.settimeout(SEND_TIMEOUT_S)
        self._seen = -1  # modification time of the directory when `_peers` was read
        self._peers: list[str] = []

    def _address(self, name: str) -> str:
        return f"/proc/self/fd/{self._dir}/{name}"

    def listen(self) -> int:
        """Start receiving. Returns the descriptor to watch for `receive`."""
        if self._receiver is None:
            name = f"{os.getpid()}.{secrets.token_hex(4)}"
            receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                receiver.setblocking(False)
                receiver.bind(self._address(name))
            except OSError:
                receiver.close()
                raise
            self._receiver, self._name = receiver, name
        return self._receiver.fileno()

    def receive(self) -> set[int]:
        """Accounts that others say moved."""
        accounts: set[int] = set()
        assert self._receiver is not None
        for _ in range(_BURST_MAX):
            try:
                data = self._receiver.recv(16)
            except BlockingIOError:
                break
            if len(data) == 8:
                accounts.add(int.from_bytes(data, "big"))
        return accounts

    def tell(self, account: int) -> None:
        """Tell all other processes that an account moved. Never raises: what moved has been committed."""
        if self._dir < 0:
            return
        data = account.to_bytes(8, "big")
        try:
            others = self._others()
        except OSError:
            return  # no descriptor left to list them with: the poll will do
        for name in others:
            try:
                self._sender.sendto(data, self._address(name))
            except (ConnectionRefusedError, FileNotFoundError):
                # Its process is gone: killed, for else it would have removed it.
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=self._dir)
            except OSError:
                pass  # its queue is full: the poll will do

    def _others(self) -> list[str]:
        changed = os.fstat(self._dir).st_mtime_ns
        if changed != self._seen:
            # Time first, names second: what comes in between is seen by the next look.
            self._seen, before = changed, self._seen
            try:
                self._peers = [name for name in os.listdir(self._dir) if name != self._name]
            except OSError:
                self._seen = before
                raise
        return self._peers

    def close(self) -> None:
        if self._dir < 0:
            return
        if self._receiver is not None and self._name is not None:
            self._receiver.close()
            with contextlib.suppress(OSError):
                os.unlink(self._name, dir_fd=self._dir)
        self._sender.close()
        os.close(self._dir)
        self._dir = -1
