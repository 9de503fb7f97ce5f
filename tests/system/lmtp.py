"""A plain LMTP client over a blocking socket, that changes nothing about the message it sends.

smtplib repairs line ends and cannot send BDAT; this sends what it is given, dot-stuffed or in one chunk.
"""

import socket
from collections.abc import Sequence

from tests.system.login import HOST


class Lmtp:
    """One session. Replies come as (code, text)."""

    def __init__(self, port: int, *, timeout_s: float = 60) -> None:
        self.socket = socket.create_connection((HOST, port), timeout=timeout_s)
        self._file = self.socket.makefile("rb")
        try:
            assert self.reply()[0] == 220
            self.extensions = self.ask(b"LHLO test")[1].upper()
        except BaseException:
            self.close()
            raise

    def reply(self) -> tuple[int, str]:
        lines = []
        while True:
            line = self._file.readline()
            if not line.endswith(b"\n"):
                raise ConnectionError(f"closed by the server after {line!r}")
            lines.append(line[4:].decode("utf-8", "replace").strip())
            if line[3:4] != b"-":
                return int(line[:3]), "\n".join(lines)

    def ask(self, line: bytes) -> tuple[int, str]:
        self.socket.sendall(line + b"\r\n")
        return self.reply()

    def begin(self, recipients: Sequence[str], parameters: str = "") -> list[tuple[int, str]]:
        """MAIL and RCPT; returns RCPT's replies."""
        code, text = self.ask(f"MAIL FROM:<sender@example.net>{parameters}".encode())
        if code != 250:
            return [(code, text)]
        return [self.ask(f"RCPT TO:<{recipient}>".encode()) for recipient in recipients]

    def data(self, message: bytes, accepted: int = 1) -> list[tuple[int, str]]:
        """DATA; one reply for each accepted recipient."""
        code, text = self.ask(b"DATA")
        if code != 354:
            return [(code, text)]
        self.socket.sendall(stuffed(message))
        return [self.reply() for _ in range(accepted)]

    def chunk(self, message: bytes, accepted: int = 1) -> list[tuple[int, str]]:
        """BDAT with everything in one chunk."""
        self.socket.sendall(b"BDAT %d LAST\r\n" % len(message) + message)
        return [self.reply() for _ in range(accepted)]

    def deliver(self, recipient: str, message: bytes) -> tuple[int, str]:
        """One message to one recipient: by DATA where DATA can carry it, else by BDAT."""
        whole = message.endswith(b"\r\n")
        binary = b"\0" in message
        body = " BODY=BINARYMIME" if binary else "" if message.isascii() else " BODY=8BITMIME"
        (answer,) = self.begin([recipient], body)
        if answer[0] != 250:
            self.ask(b"RSET")
            return answer
        return (self.data(message) if whole and not binary else self.chunk(message))[0]

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def __enter__(self) -> "Lmtp":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def stuffed(message: bytes) -> bytes:
    """As DATA carries it: leading dots doubled, and the final dot. Only CRLF begins a line here."""
    text = message.replace(b"\r\n.", b"\r\n..")
    return (b"." if text.startswith(b".") else b"") + text + (b"" if text.endswith(b"\r\n") else b"\r\n") + b".\r\n"
