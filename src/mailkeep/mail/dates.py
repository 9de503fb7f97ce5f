"""Dates in mail: of a field (RFC 5322 section 3.3), and when a message came, by its own header. No clock.

Real dates are wild; what cannot be read, or cannot be true, is None.
"""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from mailkeep.mail.header import iter_fields

# No mail is older than the first (1971), and a date years ahead is a broken clock, not a date.
_EARLIEST: Final = 31_536_000
_LATEST: Final = 4_102_444_800  # 2100


def plausible(seconds: float | None) -> int | None:
    """Unix seconds, if mail can be of that time."""
    return int(seconds) if seconds is not None and _EARLIEST <= seconds <= _LATEST else None


def read_date(text: str) -> datetime | None:
    """An RFC 5322 date with its own offset, as leniently as the standard library reads it; a missing zone is UTC."""
    try:
        when = parsedate_to_datetime(text[:200])
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        return None if plausible(when.timestamp()) is None else when
    except (ValueError, OverflowError, TypeError, IndexError, AttributeError):
        return None


def parse_date(text: str) -> int | None:
    """As `read_date`, in Unix seconds."""
    when = read_date(text)
    return None if when is None else int(when.timestamp())


def header_date(header: bytes) -> int | None:
    """When a message came, by its own header: topmost Received (after its last semicolon), else Date."""
    dated: bytes | None = None
    received = False
    for name, value in iter_fields(header):
        lower = name.lower()
        if lower == b"received" and not received:
            received = True
            found = parse_date(_text(value.rpartition(b";")[2])) if b";" in value else None
            if found is not None:
                return found
        elif lower == b"date" and dated is None:
            dated = value
    return parse_date(_text(dated)) if dated is not None else None


def _text(value: bytes) -> str:
    return b" ".join(value.split()).decode("latin-1")
