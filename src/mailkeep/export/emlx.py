"""Apple Mail's .emlx: one message with its size before it and a property list with its flags behind it.

    1234      the size of the message in bytes, in ASCII, padded with spaces
    From: …   the message, LF line ends
    <?xml …   a property list: flags (bits), date-received, date-sent, …

`.partial.emlx` is a message whose attachments are kept as files in a folder of their own; the message is imported as it
is there, with a note, for putting attachments back would be making a message that never was.

The bits are Apple's, known from what Mail writes: 0 read, 1 deleted, 2 answered, 3 encrypted, 4 flagged, 6 draft,
8 forwarded, 9 redirected.
"""

import plistlib
import re
from datetime import datetime
from typing import Any, Final
from xml.parsers.expat import ExpatError

from mailkeep.export.item import Bad, Item, header_block, slices
from mailkeep.mail.dates import header_date, plausible
from mailkeep.mail.flags import ANSWERED, DELETED, DRAFT, FLAGGED, SEEN

_BITS: Final[tuple[tuple[int, str], ...]] = (
    (1 << 0, SEEN),
    (1 << 1, DELETED),
    (1 << 2, ANSWERED),
    (1 << 4, FLAGGED),
    (1 << 6, DRAFT),
    (1 << 8, "$Forwarded"),
)
_COUNT = re.compile(rb"\s*(\d{1,12})[ \t]*\r?\n")
_PLIST_MAX: Final = 1 << 20


def read(data: bytes, source: str, *, partial: bool = False, mtime: int | None = None) -> Item | Bad:
    match = _COUNT.match(data)
    if match is None:
        return Bad(source, "not an .emlx file: it does not begin with a size", len(data))
    start, size = match.end(), int(match[1])
    end = start + size
    if end > len(data):
        return Bad(source, f"cut short: {len(data) - start} of {size} bytes are there", len(data))
    header = header_block(data, start, end)
    if not header.strip():
        return Bad(source, "no header", len(data))
    properties = _properties(data[end : end + _PLIST_MAX])
    bits = properties.get("flags", 0)
    found = {flag for bit, flag in _BITS if isinstance(bits, int) and bits & bit}
    when = _seconds(properties.get("date-received")) or header_date(header) or plausible(mtime)
    return Item(
        source,
        size,
        slices(data, start, end),
        flags=frozenset(found),
        internaldate=when,
        note="attachments are in separate files and were not put back" if partial else None,
    )


def _properties(data: bytes) -> dict[str, Any]:
    """The property list; an empty one when it is missing or damaged, for the message is worth more than its flags."""
    try:
        loaded = plistlib.loads(data.strip())
    except (plistlib.InvalidFileException, ExpatError, ValueError, TypeError, KeyError, IndexError, AttributeError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def _seconds(value: object) -> int | None:
    if isinstance(value, datetime):
        return plausible(value.timestamp())
    if isinstance(value, int | float):
        return plausible(value)
    try:
        return plausible(float(str(value)))
    except ValueError:
        return None
