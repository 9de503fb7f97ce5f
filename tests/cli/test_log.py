"""Log lines: one an event, safe from forgers, without secrets."""

import json
import logging
import os
from collections.abc import Callable, Iterator

import pytest

from mailkeep import log
from mailkeep.secret import Secret

Read = Callable[[], list[str]]


@pytest.fixture
def read() -> Iterator[Read]:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)

    def lines() -> list[str]:
        try:
            return os.read(reader, 1 << 16).decode().splitlines()
        except BlockingIOError:
            return []

    handlers = logging.getLogger().handlers[:]
    log.configure(level="info", fd=writer)
    yield lines
    log.configure()
    logging.getLogger().handlers[:] = handlers
    os.close(reader)
    os.close(writer)


def test_a_line_has_time_level_area_event_and_fields(read: Read) -> None:
    log.get("imap").info("login", user="anna", peer="127.0.0.1", tries=2, nothing=None)
    (line,) = read()
    assert line.endswith("Z info imap login user=anna peer=127.0.0.1 tries=2")


def test_the_wire_cannot_forge_a_line(read: Read) -> None:
    log.get("imap").info("login", user='x\r\n2026 info imap login user="root"', raw=b"\xff\n", empty="")
    (line,) = read()
    assert "\\r\\n" in line and 'empty=""' in line


def test_secrets_are_never_shown(read: Read) -> None:
    log.configure(level="debug", fd=log._fd)
    area = log.get("auth")
    area.debug("x", password="sesame", auth_token="sesame", user=Secret("sesame"))
    try:
        raise ValueError(str(Secret("sesame")))
    except ValueError as error:
        area.exception("failed", error)
    lines = read()
    assert len(lines) == 2 and not any("sesame" in line for line in lines)
    assert "test_log.py:" in lines[1]


def test_levels(read: Read) -> None:
    log.configure(level="warning", fd=log._fd)
    area = log.get("x")
    area.debug("a")
    area.info("b")
    area.warning("c")
    area.error("d")
    assert [line.split()[3] for line in read()] == ["c", "d"]


def test_json_lines_and_lines_of_libraries(read: Read) -> None:
    log.configure(form="json", fd=log._fd)
    logging.getLogger("asyncio").error("something %s", "odd")
    (line,) = read()
    found = json.loads(line)
    assert (found["level"], found["area"], found["event"]) == ("error", "asyncio", "something odd")


def test_a_library_forges_no_line(read: Read) -> None:
    logging.getLogger("asyncio").error("Exception in callback\nhandle: \x1b[31m\n2026 info imap login user=root")
    (line,) = read()
    assert "\x1b" not in line
    assert "Exception in callback\\nhandle" in line


def test_a_closed_stderr_stops_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    log.configure(fd=writer)
    log.get("x").error("nobody reads this")
    log.configure()
    os.close(writer)
