"""What the program says about itself: one line an event, on stderr.

An event is a short fixed phrase plus named fields: `log.info("login", user="anna", peer="127.0.0.1")`. Fixed phrases
can be searched for and counted; values never go into the phrase. Two renderings: `text` for people
(`2026-01-20T10:00:00.123Z info imap login user=anna`) and `json`, one object a line.

Never a secret: a field whose name says that it holds one is printed as `…`, whatever was passed, and so is any value
whose type hides itself (`Secret`, by its own `str`). Text from the wire is escaped, so a client cannot forge lines.

A line is one `write` to the descriptor, so lines of several worker processes do not mix.
"""

import contextlib
import json
import logging
import os
import time
import traceback
from typing import Any, Final

DEBUG, INFO, WARNING, ERROR = 10, 20, 30, 40
LEVELS: Final = {"debug": DEBUG, "info": INFO, "warning": WARNING, "error": ERROR}
_NAMES = {value: name for name, value in LEVELS.items()}
_HIDDEN: Final = ("password", "passwd", "secret", "token", "credential")
_FIELD_MAX = 1000  # characters; a log line is for reading

# One output for the process; set once by `configure` before the first session.
_level = INFO
_json = False
_fd = 2


def configure(*, level: str = "info", form: str = "text", fd: int = 2) -> None:
    """Set what is shown and how. Also brings the standard library's `logging` (asyncio warns there) into our form."""
    global _level, _json, _fd
    _level, _json, _fd = LEVELS[level], form == "json", fd
    root = logging.getLogger()
    root.handlers[:] = [_Foreign()]
    root.setLevel(max(_level, INFO))


class Log:
    """Speaks for one area (`imap`, `store`, …)."""

    __slots__ = ("area",)

    def __init__(self, area: str) -> None:
        self.area = area

    def debug(self, event: str, **fields: object) -> None:
        if _level <= DEBUG:
            _emit(DEBUG, self.area, event, fields)

    def info(self, event: str, **fields: object) -> None:
        if _level <= INFO:
            _emit(INFO, self.area, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        if _level <= WARNING:
            _emit(WARNING, self.area, event, fields)

    def error(self, event: str, **fields: object) -> None:
        _emit(ERROR, self.area, event, fields)

    def exception(self, event: str, error: BaseException, **fields: object) -> None:
        """An error that is our bug: with where it came from, but without any local value (they may be secrets)."""
        frames = traceback.extract_tb(error.__traceback__)
        where = " < ".join(f"{os.path.basename(f.filename)}:{f.lineno}" for f in reversed(frames[-8:]))
        _emit(ERROR, self.area, event, {**fields, "error": f"{type(error).__name__}: {error}", "at": where})


def get(area: str) -> Log:
    return Log(area)


def _emit(level: int, area: str, event: str, fields: dict[str, Any]) -> None:
    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
    shown = {key: _value(key, value) for key, value in fields.items() if value is not None}
    if _json:
        line = json.dumps({"time": stamp, "level": _NAMES[level], "area": area, "event": event, **shown})
    else:
        pairs = "".join(f" {key}={_quoted(value)}" for key, value in shown.items())
        line = f"{stamp} {_NAMES[level]} {area} {event}{pairs}"
    with contextlib.suppress(OSError):  # stderr is closed or full: mail service goes on without its diary
        os.write(_fd, line.encode("utf-8", "backslashreplace") + b"\n")


def _value(key: str, value: object) -> object:
    if any(word in key.lower() for word in _HIDDEN):
        return "…"
    if isinstance(value, bool | int | float):
        return value
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    return text[:_FIELD_MAX]


def _quoted(value: object) -> str:
    text = str(value)
    if text and text.isprintable() and not any(c in text for c in ' "=\\'):
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())


class _Foreign(logging.Handler):
    """Lines of libraries that use `logging`, in our form."""

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, Any] = {}
        if record.exc_info and record.exc_info[1] is not None:
            fields["error"] = f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
        level = min(ERROR, max(DEBUG, record.levelno // 10 * 10))
        # asyncio's messages have several lines, with what was on its way in them: one event is one line.
        event = record.getMessage()[: 4 * _FIELD_MAX]
        if not _json and not event.isprintable():
            event = _quoted(event)
        _emit(level, record.name.partition(".")[0], event, fields)
