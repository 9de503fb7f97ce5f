"""Which way a text runs, by its first letter that says so (rules P2 and P3 of Unicode's bidirectional algorithm).

Browsers find this out for dir="auto"; the engines that make PDF and office documents do not, so it is said to them.
"""

import re
import unicodedata
from typing import Final

_SOUGHT: Final = 2000  # characters without a letter, after which there is none
# Hebrew, Arabic, Syriac, Thaana, NKo and their presentation forms; Adlam and the old scripts beyond the first plane.
_RTL: Final = re.compile("[\u0590-\u08ff\u200f\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff]")


def has_rtl(text: str) -> bool:
    """Whether any of the text runs from right to left."""
    return not text.isascii() and _RTL.search(text) is not None


def first_strong(text: str) -> str | None:
    """ "ltr" or "rtl"; None when the text has no letters."""
    if text.isascii():
        return "ltr" if re.search("[A-Za-z]", text) else None
    seen = 0
    for char in text:
        kind = unicodedata.bidirectional(char)
        if kind == "L":
            return "ltr"
        if kind in ("R", "AL"):
            return "rtl"
        seen += not char.isspace()
        if seen > _SOUGHT:
            break
    return None
