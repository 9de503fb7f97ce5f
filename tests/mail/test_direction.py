"""Which way a text runs."""

import pytest

from mailkeep.mail.direction import first_strong, has_rtl

TEXTS = [
    ("hello", "ltr", False),
    ("123 hello שלום", "ltr", True),
    ("123, «שלום» hello", "rtl", True),
    ("مرحبا", "rtl", True),
    ("日本語", "ltr", False),
    ("🦊 12 — …", None, False),
    ("", None, False),
    ("\U0001e900", "rtl", True),
    ("ü", "ltr", False),
]


@pytest.mark.parametrize(("text", "direction", "rtl"), TEXTS)
def test_the_first_letter_decides(text: str, direction: str | None, rtl: bool) -> None:
    assert first_strong(text) == direction
    assert has_rtl(text) is rtl


def test_text_without_letters_is_not_read_to_its_end() -> None:
    assert first_strong("—" * 5000 + "ש") is None
