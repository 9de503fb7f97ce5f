"""HTML of a stranger made safe to show: nothing in it runs, loads from elsewhere or leaves its place."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SafeHtml:
    """A fragment to put into a page. `blocked`: how many things from elsewhere were left out."""

    html: str
    blocked: int
    text_direction: str  # "ltr", "rtl" or "auto"


def sanitise(html: str, *, resolve: Callable[[str], str | None], scope: str = "mk-mail") -> SafeHtml:
    """The HTML of a mail as a safe fragment, in a `div` of the class `scope`, to which its style sheets are bound.

    `resolve` gives the URL of a thing that comes with the mail (by "cid:…" or its location), None for all others.
    """
    raise NotImplementedError
