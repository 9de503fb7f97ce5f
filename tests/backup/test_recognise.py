"""Messages known again after a renumbering: only when it is sure, each once, in the order of UIDs."""

from array import array

from mailkeep.backup.recognise import (
    Ours,
    Shelf,
    Theirs,
    identity_of,
    read_identity,
    retired_name,
    sample,
    unretired,
)


def ours(uid: int, *, date: int = 1000, size: int = 50, message_id: str | None = "<a@x>", **more: object) -> Ours:
    return Ours((1, uid), uid, date, size, message_id, bytes([uid]) * 32, **more)  # type: ignore[arg-type]


def theirs(uid: int, *, date: int | None = 1000, size: int | None = 50, message_id: str | None = "<a@x>") -> Theirs:
    return Theirs(uid, date, size, message_id)


def test_the_same_second_size_and_message_id_is_the_message() -> None:
    shelf = Shelf.of([ours(1), ours(2, message_id="<b@x>")])
    found = shelf.take(theirs(90, message_id=" <b@x> "))
    assert found is not None
    assert found.place == (1, 2)
    assert [left.place for left in shelf.left()] == [(1, 1)]


def test_nothing_less_is_enough() -> None:
    shelf = Shelf.of([ours(1), ours(2, message_id=None)])
    assert shelf.take(theirs(9, size=51)) is None
    assert shelf.take(theirs(9, size=None)) is None, "a server whose sizes lie"
    assert shelf.take(theirs(9, date=1001)) is None
    assert shelf.take(theirs(9, date=None)) is None
    assert shelf.take(theirs(9, message_id=None)) is None, "two without a Message-ID are alike by chance"
    assert len(shelf) == 2


def test_likes_are_taken_in_the_order_of_uids_each_once() -> None:
    shelf = Shelf.of([ours(3), ours(1), ours(2)])
    assert [found.place[1] for uid in (7, 8, 9) if (found := shelf.take(theirs(uid)))] == [1, 2, 3]
    assert shelf.take(theirs(10)) is None
    assert len(shelf) == 0


def test_an_identity_of_the_server_is_surer_than_anything() -> None:
    shelf = Shelf.of([ours(1, identity="E1"), ours(2, identity="E2")])
    found = shelf.take(Theirs(9, None, None, None, "E2"))
    assert found is not None
    assert found.place == (1, 2)
    assert shelf.take(Theirs(10, 1000, 50, "<a@x>", "E3")) is None, "alike, but the server says it is another"


def test_an_identity_that_was_given_to_another_message_is_not_believed() -> None:
    """As by a server that counts them, after it counted anew."""
    shelf = Shelf.of([ours(1, identity="E:M1"), ours(2, message_id=None, identity="E:M2")])
    assert shelf.take(Theirs(7, 1001, 50, "<a@x>", "E:M1")) is None
    assert shelf.take(Theirs(7, 1000, 51, "<a@x>", "E:M1")) is None
    assert shelf.take(Theirs(7, 1000, 50, "<b@x>", "E:M1")) is None
    assert shelf.take(Theirs(8, 1000, 50, "<c@x>", "E:M2")) is not None, "what is not known is no contradiction"
    assert shelf.take(Theirs(7, None, 50, "<a@x>", "E:M1")) is not None


def test_identities_are_told_from_all_else() -> None:
    assert identity_of({"EMAILID": "M6d99ac3275bb4e", "X-GM-MSGID": 5}) == "E:M6d99ac3275bb4e"
    assert identity_of({"X-GM-MSGID": 1278455344230334865}) == "G:1278455344230334865"
    assert (
        identity_of({}) is identity_of({"EMAILID": None}) is identity_of({"EMAILID": "removed by the mirror"}) is None
    )
    assert identity_of({"EMAILID": "M" * 256}) is None, "longer than RFC 8474 has it"
    assert read_identity("E:M1") == "E:M1"
    assert read_identity(None) is read_identity("2 refused") is read_identity("E:M1 and more") is None


def test_equal_bytes_are_the_message_itself() -> None:
    shelf = Shelf.of([ours(1), ours(2)])
    found = shelf.take_content(bytes([2]) * 32)
    assert found is not None
    assert found.place == (1, 2)
    assert shelf.take_content(bytes([2]) * 32) is None
    assert shelf.take(theirs(5)) is not None
    assert shelf.take(theirs(6)) is None


def test_retired_names_cannot_be_a_servers_and_lead_back() -> None:
    assert unretired(retired_name("INBOX/a", 77)) == ("INBOX/a", 77)
    assert unretired("INBOX/a") is None


def test_a_sample_is_spread_over_all() -> None:
    uids = array("I", range(1, 100_001))
    some = sample(uids, 40)
    assert len(some) == 40
    assert (some[0], some[-1]) == (1, 100_000)
    assert list(sample(array("I", [5, 9]))) == [5, 9]
    assert list(sample(array("I"))) == []
