"""Addresses that are none of the Internet's, in a form that mail can carry and that can be turned back.

Exchange knows people by a distinguished name (`/O=ENRON/OU=NA/CN=RECIPIENTS/CN=JDOE`), a fax by its number. Where such
an address must stand in a header, Exchange encapsulates it ([MS-OXCMAIL] section 2.1.3.2.1): IMCEA, the type, "-", the
address with "/" as "_" and all but letters, digits, "-" and "=" as "+XX"; then a domain. The domain here is one that
can never exist (RFC 2606), so that an answer fails at once, and not at a stranger's door.
"""

import re
from typing import Final

DOMAIN: Final = "exchange.invalid"
_COPIED: Final = re.compile(r"[A-Za-z0-9=\-/]")
_PATTERN: Final = re.compile(r"IMCEA([A-Z0-9]{1,32})-(.{1,1000})@exchange\.invalid", re.IGNORECASE | re.DOTALL)


def encapsulated(kind: str, address: str) -> str:
    """The address of a type ("EX", "FAX" …) as one of mail."""
    letters = re.sub(r"[^A-Za-z0-9]", "", kind).upper()[:32] or "X"
    local = "".join(
        ("_" if c == "/" else c) if _COPIED.fullmatch(c) else "".join(f"+{byte:02X}" for byte in c.encode())
        for c in address
    )
    return f"IMCEA{letters}-{local}@{DOMAIN}"


def decapsulated(address: str) -> tuple[str, str] | None:
    """Type and address of what `encapsulated` made; None when it is an ordinary address."""
    match = _PATTERN.fullmatch(address)
    if match is None:
        return None
    local = match[2].replace("_", "/")
    raw = re.sub(rb"\+([0-9A-Fa-f]{2})", lambda found: bytes([int(found[1], 16)]), local.encode("utf-8"))
    return match[1].upper(), raw.decode("utf-8", "replace")
