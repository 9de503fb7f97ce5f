"""Sets of numbers: what parses, what they hold, and that they come back as they went."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailkeep.errors import ProtocolError
from mailkeep.mail.ids import UID_MAX
from mailkeep.mail.numset import NumSet, encode

NUMBERS = st.lists(st.integers(1, UID_MAX), max_size=50)
SMALL = st.lists(st.integers(1, 60), max_size=60)


@pytest.mark.parametrize(
    ("text", "largest", "held"),
    [
        (b"1", 9, [1]),
        (b"1:3,7", 9, [1, 2, 3, 7]),
        (b"3:1", 9, [1, 2, 3]),
        (b"7,1:3,2:4", 9, [1, 2, 3, 4, 7]),
        (b"*", 9, [9]),
        (b"*", 0, []),
        (b"9:*", 6, [6, 7, 8, 9]),  # past the end the star still is the largest (RFC 9051 section 9)
        (b"5:*", 6, [5, 6]),
        (b"*:5", 6, [5, 6]),
        (b"1:*", 0, []),
        (b"*:*", 4, [4]),
        (b"2,4:*,1", 5, [1, 2, 4, 5]),
    ],
)
def test_holds(text: bytes, largest: int, held: list[int]) -> None:
    assert list(NumSet.parse(text).resolve(largest)) == held


@pytest.mark.parametrize(
    "text", [b"", b"0", b"1,", b",1", b"1:", b":1", b"1:2:3", b"a", b"4294967296", b"01", b"1 ,2", b"-1", b"1;2", b"**"]
)
def test_refuses(text: bytes) -> None:
    with pytest.raises(ProtocolError):
        NumSet.parse(text)


def test_a_whole_mailbox_costs_one_range() -> None:
    everything = NumSet.parse(b"1:4294967295")
    assert everything.ranges == ((1, UID_MAX),)
    assert len(everything) == UID_MAX


@given(NUMBERS)
def test_round_trip(numbers: list[int]) -> None:
    made = NumSet.of(numbers)
    assert len(made) == len(set(numbers))
    if numbers:
        assert NumSet.parse(bytes(made)) == made
        assert NumSet.parse(encode(numbers)) == made


@given(SMALL, SMALL)
def test_slices_are_the_members(numbers: list[int], present: list[int]) -> None:
    made, rows = NumSet.of(numbers), sorted(set(present))
    cut = [rows[index] for start, stop in made.slices(rows) for index in range(start, stop)]
    assert cut == [row for row in rows if row in set(numbers)] == [row for row in rows if row in made]


@given(SMALL)
def test_encode_keeps_the_order(numbers: list[int]) -> None:
    told: list[int] = []
    for item in encode(numbers).split(b",") if numbers else []:
        low, _, high = item.partition(b":")
        told += range(int(low), int(high or low) + 1)
    assert told == numbers


@given(st.binary(max_size=20))
def test_garbage_is_refused_or_read(text: bytes) -> None:
    try:
        made = NumSet.parse(text)
    except ProtocolError:
        return
    assert NumSet.parse(bytes(made)) == made
