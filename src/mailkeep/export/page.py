"""The page of a message, as the formats HTML, MHT, PDF and DOCX share it."""

from collections.abc import Callable
from dataclasses import dataclass

from mailkeep.export.writer import Message
from mailkeep.mail.letter import Attachment, Letter


@dataclass(frozen=True, slots=True)
class Show:
    """How the pages of a format are made.

    `image` and `link` are asked about attachments of the message itself only: embedded messages are shown with their
    images as data URLs, and their attachments are named.
    """

    image: Callable[[Attachment], str | None]  # URL of an inline image: a relative file, "data:…", cid or location
    link: Callable[[Attachment], str | None]  # URL of an attachment in the list; None: its name only
    style: str = "screen"  # "screen", "print" or "office"
    top: str = ""  # safe HTML above the message
    source: str | None = None  # URL of the raw message, for a page that cannot show it


def page(message: Message, letter: Letter, show: Show) -> str:
    """The message as a whole HTML5 document that loads nothing from elsewhere and runs nothing."""
    raise NotImplementedError


def problem_page(message: Message, reason: str, show: Show) -> str:
    """The page in place of a message that cannot be shown: it says why, and links the raw source."""
    raise NotImplementedError


def body_fragment(letter: Letter, show: Show) -> str:
    """The body alone: safe HTML to put into a page."""
    raise NotImplementedError
