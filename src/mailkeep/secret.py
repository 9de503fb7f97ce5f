"""A password or token on its way through the program: it shows itself as … wherever it is printed or logged.

Both sides need it: `serve` for what clients send us, `backup` for what we send to other servers. It knows nothing of
what the text is for; SASLprep is the business of who checks a password.
"""

from mailkeep.errors import ProtocolError


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
