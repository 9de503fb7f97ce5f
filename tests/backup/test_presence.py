"""What is there already, told by content: one message there stands for one of ours, the surest match first."""

from mailkeep.backup.presence import Ours, Presence, Theirs, identity_of, identity_of_bytes
from mailkeep.mail.structure import render
from mailkeep.wire.imap_answer_fetch import read_value
from tests.messages import corpus

NOON = 1_700_000_000


def match(theirs: list[Theirs], ours: list[Ours]) -> dict[int, int]:
    there = Presence()
    for each in theirs:
        there.add(each)
    return there.match(ours)


def message_id(text: str) -> bytes:
    return identity_of(None, text)


def test_message_ids_are_compared_without_brackets_and_blanks() -> None:
    assert message_id("<a@b>") == message_id(" a@b ") != message_id("<A@b>")


def test_ours_and_theirs_agree_for_all_kinds_of_mail() -> None:
    """The envelope that we keep, and the same one as it comes over a line."""
    for name, data in corpus():
        rendered = render(data)
        parsed, _ = read_value(rendered.envelope, 0, len(rendered.envelope))
        assert identity_of_bytes(rendered.envelope, rendered.message_id) == identity_of(parsed), name


def test_size_and_date_then_size_then_date() -> None:
    same = message_id("<a@b>")
    ours = [Ours(1, same, 100, NOON), Ours(2, same, 200, NOON), Ours(3, same, 300, NOON + 5)]
    theirs = [Theirs(7, same, 302, NOON), Theirs(8, same, 100, NOON), Theirs(9, same, 999, NOON)]
    assert match(theirs, ours) == {1: 8, 3: 7, 2: 9}
    assert match(theirs[:1], [Ours(1, same, 5, NOON - 1)]) == {}
    assert match([Theirs(7, same, None, NOON)], [Ours(1, same, 5, NOON)]) == {1: 7}
    assert match([Theirs(7, same, 5, None)], [Ours(1, same, 5, NOON)]) == {1: 7}


def test_one_there_stands_for_one_of_ours() -> None:
    same = message_id("<a@b>")
    twins = [Ours(key, same, 100, NOON) for key in (1, 2, 3)]
    assert match([Theirs(7, same, 100, NOON), Theirs(8, same, 100, NOON)], twins) == {1: 7, 2: 8}


def test_without_message_id_all_must_agree() -> None:
    plain = identity_of((b"Mon, 1 Jan 2024 10:00:00 +0000", b"Hi", ((None, None, b"Ann", b"x.org"),), *(None,) * 7))
    assert plain != message_id("<a@b>")
    assert match([Theirs(7, plain, 100, NOON)], [Ours(1, plain, 100, NOON)]) == {1: 7}
    assert match([Theirs(7, plain, 100, NOON + 1)], [Ours(1, plain, 100, NOON)]) == {}
    assert match([Theirs(7, plain, 120, NOON)], [Ours(1, plain, 100, NOON)]) == {}
