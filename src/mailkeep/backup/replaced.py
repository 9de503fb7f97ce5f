"""Texts that a server gives instead of a message. Exchange does: what it cannot convert, it replaces by an apology.

To archive that as the mail would hide that the mail is missing. The texts are data of the provider (`quirks`); they are
looked for at the start of a message only, where such a server puts them.
"""

import re
from functools import lru_cache
from mmap import mmap
from typing import Final

LOOKED_AT: Final = 16 << 10


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> "re.Pattern[bytes]":
    return re.compile(pattern.encode("utf-8"), re.IGNORECASE | re.DOTALL)


def is_replacement(data: bytes | mmap, pattern: str | None) -> bool:
    """Whether these bytes are the server's own text in place of the mail. `pattern`: of `Quirks.reject_body_regex`."""
    return bool(pattern) and _compiled(pattern or "").search(bytes(data[:LOOKED_AT])) is not None
