"""Sets of UIDs or sequence numbers as IMAP writes them: `1:3,7,9:*` (RFC 9051 section 9, sequence-set).

A set is kept as sorted, disjoint, merged ranges, never expanded: `1:4294967295` costs the same as `1`. The star is
the number STAR until `resolve` gives it the largest number in use.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mailkeep.errors import ProtocolError

STAR = 1 << 32
RANGES_MAX = 100_000

# seq-number = nz-number / "*" ; seq-range = seq-number ":" seq-number ; sequence-set = item *("," item)
# Possessive, so that a bad end costs no second look at a long set.
_NUMBER = rb"(?:[1-9][0-9]{0,9}+|\*)"
_ITEM = _NUMBER + rb"(?::" + _NUMBER + rb")?+"
_SET = re.compile(_ITEM + rb"(?:," + _ITEM + rb")*+")


def _in_range(value: int) -> int:
    if value >= STAR:
        raise ProtocolError("Number too large in set")
    return value


def _number(text: bytes) -> int:
    return STAR if text == b"*" else _in_range(int(text))


def _merge(ranges: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    if len(ranges) < 2:
        return tuple(ranges)
    ranges.sort()
    merged = [ranges[0]]
    for low, high in ranges[1:]:
        last_low, last_high = merged[-1]
        if low <= last_high + 1:
            if high > last_high:
                merged[-1] = (last_low, high)
        else:
            merged.append((low, high))
    return tuple(merged)


@dataclass(frozen=True, slots=True)
class NumSet:
    """Sorted, disjoint ranges of positive numbers, both ends included; an end may be STAR before `resolve`.

    `star_ranges` keeps the ranges that named the star, since `9:*` means `6:9` when 6 is the largest.
    """

    ranges: tuple[tuple[int, int], ...] = ()
    star_ranges: tuple[int, ...] = ()  # the other end of each range with a star; STAR for a lone "*"

    @classmethod
    def parse(cls, text: bytes, *, ranges_max: int = RANGES_MAX) -> "NumSet":
        """Read a sequence-set. Raises ProtocolError on bad grammar, zero, numbers over 32 bits, too many ranges."""
        if text.isdigit() and len(text) <= 10 and text[0] != 0x30:  # nearly all are one number
            value = _in_range(int(text))
            return cls(((value, value),))
        if not _SET.fullmatch(text):
            raise ProtocolError("Bad sequence set")
        items = text.split(b",")
        if len(items) > ranges_max:
            raise ProtocolError("Too many ranges in set")
        if b"*" in text:
            return cls._parse_starred(items)
        if b":" not in text:
            numbers = sorted(map(int, items))
            _in_range(numbers[-1])
            return cls(_runs(numbers))
        ranges: list[tuple[int, int]] = []
        for item in items:
            first, colon, second = item.partition(b":")
            low = int(first)
            high = int(second) if colon else low
            ranges.append((low, high) if low <= high else (high, low))
        merged = _merge(ranges)
        _in_range(merged[-1][1])
        return cls(merged)

    @classmethod
    def _parse_starred(cls, items: list[bytes]) -> "NumSet":
        ranges: list[tuple[int, int]] = []
        stars: list[int] = []
        for item in items:
            first, colon, second = item.partition(b":")
            low = _number(first)
            high = _number(second) if colon else low
            if low > high:
                low, high = high, low
            if high == STAR:
                stars.append(low)
            else:
                ranges.append((low, high))
        return cls(_merge(ranges), tuple(stars))

    @classmethod
    def of(cls, numbers: Iterable[int]) -> "NumSet":
        """The set of these numbers."""
        return cls(_runs(sorted(numbers)))

    def resolve(self, largest: int) -> "NumSet":
        """The set with the star replaced by `largest` (0 when the mailbox is empty: the star then means nothing)."""
        if not self.star_ranges:
            return self
        ranges = list(self.ranges)
        if largest > 0:
            for other in self.star_ranges:
                end = largest if other == STAR else other
                ranges.append((min(end, largest), max(end, largest)))
        return NumSet(_merge(ranges))

    def __contains__(self, number: int) -> bool:
        index = bisect_right(self.ranges, (number, STAR)) - 1
        return index >= 0 and self.ranges[index][0] <= number <= self.ranges[index][1]

    def __bool__(self) -> bool:
        return bool(self.ranges or self.star_ranges)

    def __len__(self) -> int:
        """How many numbers the resolved set holds."""
        return sum(high - low + 1 for low, high in self.ranges)

    def __iter__(self) -> Iterator[int]:
        for low, high in self.ranges:
            yield from range(low, high + 1)

    def slices(self, numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Index ranges [start, stop) of the sorted sequence `numbers` that lie in this resolved set, in order."""
        stop = 0
        for low, high in self.ranges:
            start = bisect_left(numbers, low, stop)
            # Numbers are distinct: a range of n holds at most n of them, so the second look is a short one.
            stop = bisect_right(numbers, high, start, min(start + high - low + 1, len(numbers)))
            if start < stop:
                yield start, stop

    def __bytes__(self) -> bytes:
        """The set as IMAP writes it."""
        parts = [b"%d" % low if low == high else b"%d:%d" % (low, high) for low, high in self.ranges]
        parts += [b"*" if other == STAR else b"%d:*" % other for other in self.star_ranges]
        return b",".join(parts)


def _runs(numbers: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Sorted numbers, some perhaps twice, as ranges."""
    if not numbers:
        return ()
    ranges = []
    start = last = numbers[0]
    for number in numbers:
        if number - last > 1:
            ranges.append((start, last))
            start = number
        last = number
    ranges.append((start, last))
    return tuple(ranges)


def encode(numbers: Iterable[int]) -> bytes:
    """Numbers in the given order as a compact set: runs that rise by one become ranges, order is kept."""
    parts: list[str] = []
    start = last = -1
    for number in numbers:
        if number == last + 1 and start >= 0:
            last = number
            continue
        if start >= 0:
            parts.append(str(start) if start == last else f"{start}:{last}")
        start = last = number
    if start >= 0:
        parts.append(str(start) if start == last else f"{start}:{last}")
    return ",".join(parts).encode("ascii")
