"""Dates of fields and of messages, as real mail has them."""

import pytest

from mailkeep.mail.dates import header_date, parse_date, plausible


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Tue, 20 Jan 2026 10:00:00 +0000", 1768903200),
        ("20 Jan 2026 11:00:00 +0100 (CET)", 1768903200),
        ("Tue, 20 Jan 2026 10:00:00", 1768903200),
        ("Tue, 99 Foo 99999 99:99:99 +9999", None),
        ("yesterday", None),
        ("", None),
        ("Thu, 1 Jan 1970 00:00:00 +0000", None),
        ("Fri, 1 Jan 2200 00:00:00 +0000", None),
    ],
)
def test_dates(text: str, seconds: int | None) -> None:
    assert parse_date(text) == seconds


def test_when_a_message_came() -> None:
    date = b"Date: Tue, 20 Jan 2026 10:00:00 +0000\r\n"
    first = b"Received: from x\r\n by y; z;\r\n Tue, 20 Jan 2026 10:00:05 +0000\r\n"
    later = b"Received: by z; Tue, 20 Jan 2026 09:00:00 +0000\r\n"
    assert header_date(date + b"\r\n") == 1768903200
    assert header_date(date + first + later + b"\r\n") == 1768903205
    assert header_date(b"Received: by z\r\n" + later + date + b"\r\n") == 1768903200
    assert header_date(b"Received: by z; now\r\n" + date + b"\r\n") == 1768903200
    assert header_date(b"Subject: x\r\n\r\n" + date) is None


def test_what_can_be_true() -> None:
    assert plausible(1768903200.5) == 1768903200
    assert plausible(None) is None
    assert plausible(0) is None
