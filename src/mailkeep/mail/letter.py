"""What a reader sees in a message: who wrote to whom, when, the body as text and HTML, and the attachments.

Knows which parts are the body and which are attached (RFC 2046, 2183, 2387, 1847), charsets as real mail has them,
format=flowed (RFC 3676), and names. Draws nothing and makes nothing safe: HTML and names are as the sender gave them.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from mailkeep.mail.mime import Part, scan


class Correspondent(NamedTuple):
    """Somebody in an address field, decoded. `address` is "" where there is none (a group without members)."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class Attachment:
    """A part that is not the body. `name` is decoded but NOT safe as a file name; `number` counts from 1."""

    number: int
    name: str
    media_type: str  # lower case
    content_id: str | None  # without <>
    location: str | None
    inline: bool  # the HTML body refers to it, or it is an image that says so
    message: bool  # message/rfc822 or message/global: letter_of(letter.content(it)) reads it
    part: Part


@dataclass(frozen=True, slots=True)
class Letter:
    """A message as its reader sees it. Made by `letter_of`."""

    data: bytes
    root: Part
    subject: str
    date: datetime | None  # of Date, with its own offset
    from_: tuple[Correspondent, ...]
    sender: tuple[Correspondent, ...]
    reply_to: tuple[Correspondent, ...]
    to: tuple[Correspondent, ...]
    cc: tuple[Correspondent, ...]
    bcc: tuple[Correspondent, ...]
    message_id: str | None  # with <>
    in_reply_to: str | None
    references: tuple[str, ...]
    text: str | None  # lines end with LF
    html: str | None  # NOT safe: see safe_html
    attachments: tuple[Attachment, ...]
    problems: tuple[str, ...]

    def header(self, name: str) -> str | None:
        """The decoded value of the first field of this name."""
        raise NotImplementedError

    def headers(self) -> list[tuple[str, str]]:
        """All fields in order: name, decoded value."""
        raise NotImplementedError

    def content(self, attachment: Attachment) -> bytes:
        """The bytes of an attachment, transfer encoding undone as far as it can be."""
        raise NotImplementedError


def letter_of(data: bytes) -> Letter:
    """What a reader sees in these bytes. Linear time, never raises."""
    root = scan(data)
    return Letter(data, root, "", None, (), (), (), (), (), (), None, None, (), None, None, (), ())
