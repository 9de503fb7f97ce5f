"""The filter options that commands share: --folder, --since, --query … become one Selection.

    @selection_options
    @common
    def pull(call: Call, …, selection: Selection) -> int: ...

Knows the options' words and the clock ("30d" is thirty days before now), nothing of what is filtered.
"""

import functools
import re
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from mailkeep.errors import UsageError

if TYPE_CHECKING:
    from mailkeep.mail.selection import Selection

_AGO = re.compile(r"(\d{1,5})\s*(d|w|m|y)", re.IGNORECASE)
_DAYS: Final = {"d": 1, "w": 7, "m": 30, "y": 365}


def parse_day(text: str, *, option: str, now: float | None = None) -> date:
    """`2023-05-17`, `2023-05`, `2023`, or so long ago: `30d`, `6w`, `3m`, `2y`. Raises UsageError."""
    from mailkeep.mail.search_text import parse_days

    match = _AGO.fullmatch(text.strip())
    if match is not None:
        today = datetime.fromtimestamp(time.time() if now is None else now, UTC).date().toordinal()
        return date.fromordinal(max(today - int(match[1]) * _DAYS[match[2].lower()], 1))
    try:
        return parse_days(text)[0]
    except UsageError as error:
        raise UsageError(f"{option} {error.text}, or a time ago such as 30d, 6w, 3m or 2y") from None


OPTIONS: Final = (
    click.option("--folder", multiple=True, metavar="PATTERN", help="Only these: `Work/*`, `\\Sent`. Repeatable."),
    click.option("--not-folder", multiple=True, metavar="PATTERN", help="Not these. Repeatable."),
    click.option("--since", metavar="DAY", help="Only what came in on this day or later: 2023-05-17, 2023 or 30d."),
    click.option("--before", metavar="DAY", help="Only what came in before this day."),
    click.option("--larger", metavar="SIZE", help="Only larger messages: 5M."),
    click.option("--smaller", metavar="SIZE", help="Only smaller messages."),
    click.option("--flag", multiple=True, metavar="FLAG", help="Only with this flag or keyword; !FLAG without it."),
    click.option("--kind", multiple=True, metavar="KIND", help="Only mail, event, contact, note or task. Repeatable."),
    click.option("--query", metavar="SEARCH", help="Only what matches: `from:anna has:attachment -invoice`."),
)


def selection_options(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the filter options; it gets them as `selection`, checked."""

    @functools.wraps(command)
    def called(**given: Any) -> int:
        own = {name: given.pop(name) for name in _NAMES}
        return command(selection=make_selection(**own), **given)

    wrapped: Callable[..., int] = called
    for option in reversed(OPTIONS):
        wrapped = option(wrapped)
    return wrapped


def typed_filters() -> str:
    """The filters of the command at hand as they were typed: `30d` stays the same, the day it stands for does not."""
    given = click.get_current_context().params
    words = []
    for name in _NAMES:
        value = given.get(name)
        values = value if isinstance(value, tuple) else () if value is None else (value,)
        words += [f"--{name.replace('_', '-')} {each}" for each in values]
    return " ".join(words)


_NAMES: Final = ("folder", "not_folder", "since", "before", "larger", "smaller", "flag", "kind", "query")


def make_selection(
    *,
    folder: tuple[str, ...] = (),
    not_folder: tuple[str, ...] = (),
    since: str | None = None,
    before: str | None = None,
    larger: str | None = None,
    smaller: str | None = None,
    flag: tuple[str, ...] = (),
    kind: tuple[str, ...] = (),
    query: str | None = None,
) -> "Selection":
    """The words of a command line as a Selection. Raises UsageError, which says what to give."""
    from mailkeep.mail.search_text import parse_size
    from mailkeep.mail.selection import Selection

    words = [word for text in kind for word in re.split(r"[,\s]+", text) if word]
    return Selection(
        folders=folder,
        not_folders=not_folder,
        since=None if since is None else parse_day(since, option="--since"),
        before=None if before is None else parse_day(before, option="--before"),
        larger=None if larger is None else parse_size(larger),
        smaller=None if smaller is None else parse_size(smaller),
        flags=flag,
        kinds=frozenset(word.lower() for word in words),
        query=query or "",
    ).check()
