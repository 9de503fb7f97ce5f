"""One message against a query."""

from dataclasses import dataclass, field
from datetime import date

import pytest

from mailkeep.mail import query as q
from mailkeep.mail.numset import NumSet
from mailkeep.mail.text import Searchable


@dataclass(frozen=True)
class Message:
    uid: int = 7
    flags: frozenset[str] = frozenset({"\\Seen", "$Junk"})
    size: int = 100
    internaldate: int = 86_400 * 2 + 5  # 3 January 1970
    savedate: int = 86_400 * 3
    modseq: int = 50
    email: int = 3
    thread: int = 2
    sent_day: int | None = date(2024, 2, 29).toordinal()
    has_attachment: bool = False
    headers: dict[str, list[str]] = field(default_factory=lambda: {"subject": ["Grüße"], "x-empty": [""]})

    def header(self, name: str) -> list[str]:
        return self.headers.get(name.lower(), [])

    def searchable(self) -> Searchable:
        return Searchable(headers="subject: grüsse", body="the body text")


THIRD = date(1970, 1, 3).toordinal()
LEAP = date(2024, 2, 29).toordinal()

CASES: list[tuple[q.Query, bool]] = [
    (q.All(), True),
    (q.And(()), True),
    (q.Or(()), False),
    (q.And((q.All(), q.Not(q.All()))), False),
    (q.Or((q.Not(q.All()), q.All())), True),
    (q.UIDs(NumSet.of([5, 7])), True),
    (q.UIDs(NumSet.of([6])), False),
    (q.HasFlag("\\Seen"), True),
    (q.HasFlag("$junk"), True),
    (q.HasFlag("\\Deleted"), False),
    (q.Larger(99), True),
    (q.Larger(100), False),
    (q.Smaller(101), True),
    (q.Smaller(100), False),
    (q.Internal(THIRD, THIRD + 1), True),
    (q.Internal(None, THIRD), False),
    (q.Internal(THIRD + 1, None), False),
    (q.Sent(LEAP, LEAP + 1), True),
    (q.Sent(None, LEAP), False),
    (q.SavedSince(THIRD + 1, None), True),
    (q.SavedSince(THIRD + 2, None), False),
    (q.Header("Subject", "GRÜSSE"), True),
    (q.Header("Subject", "grub"), False),
    (q.Header("X-Empty", ""), True),
    (q.Header("X-Missing", ""), False),
    (q.Body("BODY"), True),
    (q.Body("grüsse"), False),
    (q.Text("GRÜßE"), True),
    (q.Text("text"), True),
    (q.Text("nowhere"), False),
    (q.ModSeqAtLeast(50), True),
    (q.ModSeqAtLeast(51), False),
    (q.SameEmail(3), True),
    (q.SameEmail(2), False),
    (q.SameThread(2), True),
    (q.SameThread(3), False),
]


@pytest.mark.parametrize(("query", "expected"), CASES)
def test_matches(query: q.Query, expected: bool) -> None:
    assert q.matches(query, Message()) is expected
    assert q.matches(q.Not(query), Message()) is not expected


def test_a_message_without_a_date_was_sent_on_no_day() -> None:
    assert not q.matches(q.Sent(None, None), Message(sent_day=None))
