"""Flags: one spelling for system flags, keywords as they are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailkeep.errors import ProtocolError
from mailkeep.mail.flags import SYSTEM_FLAGS, canonical

ATOM = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters='(){%*"\\]'), min_size=1)


@pytest.mark.parametrize("flag", SYSTEM_FLAGS)
def test_system_flags_have_one_spelling(flag: str) -> None:
    assert canonical(flag.upper()) == canonical(flag.lower()) == canonical(flag) == flag


@pytest.mark.parametrize(
    "flag", ["\\Recent", "\\recent", "\\*", "\\Foo", "\\", "", "a b", "a(", "é", "a\x00", "x" * 256, "a]"]
)
def test_refuses(flag: str) -> None:
    with pytest.raises(ProtocolError):
        canonical(flag)


@given(ATOM.filter(lambda text: len(text) < 256))
def test_keywords_stay_as_they_are(flag: str) -> None:
    assert canonical(canonical(flag)) == flag


@given(st.text(max_size=30))
def test_what_is_taken_is_taken_again(flag: str) -> None:
    try:
        kept = canonical(flag)
    except ProtocolError:
        return
    assert canonical(kept) == kept
