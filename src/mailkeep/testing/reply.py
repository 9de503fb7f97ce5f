"""How a command of a scripted server ends."""

from dataclasses import dataclass

from mailkeep.wire import imap_response


@dataclass(frozen=True, slots=True)
class Reply:
    """What stands behind the tag; `ends`: the session is over after it."""

    status: str
    text: str
    code: bytes | str | None = None
    ends: bool = False

    def line(self) -> bytes:
        """Without a tag and a line's end."""
        return imap_response.tagged(b"", self.status, self.text, code=self.code).strip()


def OK(text: str, code: bytes | str | None = None) -> Reply:  # as IMAP writes it
    """Done."""
    return Reply("OK", text, code)


class Refused(Exception):
    """The command fails with this reply."""

    def __init__(self, status: str, text: str, code: bytes | str | None = None, *, ends: bool = False) -> None:
        super().__init__(text)
        self.reply = Reply(status, text, code, ends)
