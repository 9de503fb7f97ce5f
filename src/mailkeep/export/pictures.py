"""The pictures of a message as data: URLs, for engines that are handed a page and nothing beside it."""

import base64

from mailkeep.export.page import picture_type
from mailkeep.mail.letter import Attachment, Letter


class Pictures:
    """For `Show.image`. `shown`: the numbers of the attachments that it was asked for, and gave."""

    def __init__(self, letter: Letter) -> None:
        self._letter = letter
        self.shown: set[int] = set()

    def url(self, attachment: Attachment) -> str | None:
        """None for what is no picture that every engine can show."""
        kind = picture_type(self._letter, attachment)
        if kind is None:
            return None
        self.shown.add(attachment.number)
        return f"data:{kind};base64,{base64.b64encode(self._letter.content(attachment)).decode()}"
