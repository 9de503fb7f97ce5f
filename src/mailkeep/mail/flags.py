"""Flags and keywords (RFC 9051 section 2.3.2).

A set of flags is a `frozenset[str]`: system flags in canonical spelling, keywords as first spelled. Keywords compare
without case, so the store keeps the first spelling it sees in an account.
"""

import re

from mailkeep.errors import ProtocolError

SEEN = "\\Seen"
ANSWERED = "\\Answered"
FLAGGED = "\\Flagged"
DELETED = "\\Deleted"
DRAFT = "\\Draft"
RECENT = "\\Recent"

SYSTEM_FLAGS = (ANSWERED, FLAGGED, DELETED, SEEN, DRAFT)
_CANONICAL = {name.lower(): name for name in SYSTEM_FLAGS}

# flag-keyword = atom: no CTL, SP, list brackets, wildcards, quotes, backslash or "]" (RFC 9051 section 9).
_KEYWORD = re.compile(r"[^\x00-\x20\x7f-\U0010ffff(){%*\"\\\]]{1,255}")

Flags = frozenset[str]


def canonical(name: str) -> str:
    """The flag as the store keeps it. Raises ProtocolError for \\Recent, unknown system flags and bad keywords."""
    if name.startswith("\\"):
        try:
            return _CANONICAL[name.lower()]
        except KeyError:
            raise ProtocolError(f"Flag {name[:64]} cannot be set") from None
    if not is_keyword(name):
        raise ProtocolError("Bad keyword")
    return name


def is_keyword(name: str) -> bool:
    """Whether the grammar takes it for a keyword."""
    return _KEYWORD.fullmatch(name) is not None
