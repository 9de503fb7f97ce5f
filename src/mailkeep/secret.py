"""A password or token on its way through the program: it shows itself as … wherever it is printed or logged.

Both sides need it: `serve` for what clients send us, `backup` for what we send to other servers. It knows nothing of
what the text is for; SASLprep is the business of who checks a password.
"""

import re
from base64 import b64encode
from typing import Final

from mailkeep.errors import MailkeepError, ProtocolError

ECHO_MIN: Final = 4  # characters of a secret that are looked for in what a server says
_BASE64 = re.compile(r"[A-Za-z0-9+/]{40,}={0,2}")  # an initial response with a token in it, wherever its bytes fall


class Secret:
    """A text that nobody is to see. Only `reveal` gives it away."""

    __slots__ = ("_value",)

    def __init__(self, value: str | bytes) -> None:
        self._value = value

    @property
    def size(self) -> int:
        return len(self._value)

    def reveal(self) -> str:
        """The text, exactly as it was given. Raises ProtocolError when it is not UTF-8."""
        if isinstance(self._value, bytes):
            try:
                return self._value.decode()
            except UnicodeDecodeError:
                raise ProtocolError("Password is not UTF-8") from None
        return self._value

    def __repr__(self) -> str:
        return "…"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "…"

    def __reduce__(self) -> str:
        raise TypeError("a secret is not written out")


def hush(error: MailkeepError, secret: Secret, *, user: str) -> None:
    """Make the text of an error fit to be seen: some servers repeat the line that they did not understand, with the
    password in it."""
    plain = secret.reveal()
    known = {plain, plain.replace("\\", "\\\\").replace('"', '\\"')}
    known |= {b64encode(each.encode()).decode().rstrip("=") for each in (plain, f"\0{user}\0{plain}")}
    text = _BASE64.sub("…", error.text)
    for each in sorted(known, key=len, reverse=True):
        if len(each) >= ECHO_MIN:
            text = text.replace(each, "…")
    if text != error.text:
        error.text, error.args = text, (text,)
