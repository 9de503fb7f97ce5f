"""From a search tree to two SQL conditions: what surely matches, and what may.

Knows the columns of `message` and `email`; knows nothing of the index, of texts or of running anything.

The hard idea is *two bounds*. A text key cannot be decided in SQL; an index can only say "surely not" (a trigram is
missing) and, for up to three characters, "surely". So each node is compiled twice: `surely` holds only for rows that
match, `maybe` for all rows that match and perhaps some more. For keys over columns both are the same text. NOT swaps
them: surely(NOT x) = NOT maybe(x). Rows in `maybe` but not in `surely` are decided by reading them.

A condition never yields NULL, else NOT would lose rows; hence the ifnull.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from mailkeep.mail.numset import NumSet
from mailkeep.mail.query import (
    All,
    And,
    Body,
    HasAttachment,
    HasFlag,
    Header,
    Internal,
    Larger,
    ModSeqAtLeast,
    Not,
    Or,
    Query,
    SameEmail,
    SameThread,
    SavedSince,
    Sent,
    Smaller,
    Text,
    UIDs,
)

TextKey = Header | Body | Text

_EPOCH_DAY = 719_163  # date(1970, 1, 1).toordinal()
_DAY_S = 86_400
_INLINE_RANGES = 100  # a UID set with more ranges goes to a temporary table
_KEY_UID = "(m.key & 4294967295)"
_YES, _NO = "1", "0"
# The disposition as BODYSTRUCTURE has it. Quotes inside a string are escaped there, so no text looks like this.
HAS_ATTACHMENT = """(instr(lower(CAST(e.bodystructure AS TEXT)), '("attachment" ') > 0)"""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Two SQL conditions over `message m JOIN email e`; equal when columns alone decide."""

    surely: str
    maybe: str

    @property
    def exact(self) -> bool:
        return self.surely == self.maybe


@dataclass(slots=True)
class Plan:
    """A compiled query. `sets` are UID sets too long to be written inline: temporary table name → set."""

    bounds: Bounds = field(default_factory=lambda: Bounds(_YES, _YES))
    sets: dict[str, NumSet] = field(default_factory=dict)
    uid_first: int = 1
    uid_last: int = 0xFFFF_FFFF


def text_keys(query: Query) -> tuple[TextKey, ...]:
    """Every distinct key that needs a message's text, in the order of the tree."""
    found: dict[TextKey, None] = {}
    stack: list[Query] = [query]
    while stack:
        node = stack.pop()
        if isinstance(node, And | Or):
            stack.extend(reversed(node.parts))
        elif isinstance(node, Not):
            stack.append(node.part)
        elif isinstance(node, Header | Body | Text):
            found[node] = None
    return tuple(found)


def compile_query(
    query: Query, flagsets: Callable[[str], Sequence[int]], text_bounds: Callable[[TextKey], Bounds]
) -> Plan:
    """The plan of `query`. `flagsets` gives the numbers of the flag sets that hold a flag; `text_bounds` what is
    known of a text key without reading messages."""
    plan = Plan()
    compiler = _Compiler(plan, flagsets, text_bounds)
    plan.bounds = compiler.node(query)
    for part in query.parts if isinstance(query, And) else (query,):
        if isinstance(part, UIDs):
            ranges = part.uids.ranges
            plan.uid_first = max(plan.uid_first, ranges[0][0] if ranges else 0xFFFF_FFFF)
            plan.uid_last = min(plan.uid_last, ranges[-1][1] if ranges else 0)
    return plan


UNKNOWN = Bounds(_NO, _YES)
EVERY = Bounds(_YES, _YES)


@dataclass(slots=True)
class _Compiler:
    plan: Plan
    flagsets: Callable[[str], Sequence[int]]
    text_bounds: Callable[[TextKey], Bounds]

    def node(self, node: Query) -> Bounds:
        match node:
            case And(parts):
                return self._joined("AND", parts, _YES)
            case Or(parts):
                return self._joined("OR", parts, _NO)
            case Not(part):
                inner = self.node(part)
                return Bounds(f"NOT {inner.maybe}", f"NOT {inner.surely}")
            case Header() | Body() | Text():
                return self.text_bounds(node)
            case _:
                condition = self._column(node)
                return Bounds(condition, condition)

    def _column(
        self,
        node: All
        | UIDs
        | HasFlag
        | Larger
        | Smaller
        | Internal
        | Sent
        | ModSeqAtLeast
        | SavedSince
        | SameEmail
        | SameThread
        | HasAttachment,
    ) -> str:
        match node:
            case All():
                return _YES
            case UIDs(uids):
                return self._uids(uids)
            case HasFlag(flag):
                return f"(m.flags IN ({','.join(map(str, self.flagsets(flag)))}))"
            case Larger(size):
                return f"(m.size > {size:d})"
            case Smaller(size):
                return f"(m.size < {size:d})"
            case Internal(first, end):
                return _days("m.internaldate", first, end, seconds=True)
            case SavedSince(first, end):
                return _days("m.savedate", first, end, seconds=True)
            case Sent(first, end):
                return _days("e.sent_day", first, end, seconds=False)
            case ModSeqAtLeast(modseq):
                return f"(m.modseq >= {modseq:d})"
            case SameEmail(email):
                return f"(m.email = {email:d})"
            case SameThread(thread):
                return f"(e.thread = {thread:d})"
            case HasAttachment():
                return HAS_ATTACHMENT
            case _:
                assert_never(node)

    def _joined(self, word: str, parts: Sequence[Query], empty: str) -> Bounds:
        # Cheap conditions first: SQLite tests the terms of a conjunction in the order written.
        texts = [part for part in dict.fromkeys(parts) if text_keys(part)]
        cheap = [part for part in dict.fromkeys(parts) if not text_keys(part)]
        bounds = [self.node(part) for part in cheap + texts]
        return Bounds(
            _balanced(word, [each.surely for each in bounds], empty),
            _balanced(word, [each.maybe for each in bounds], empty),
        )

    def _uids(self, uids: NumSet) -> str:
        if not uids.ranges:
            return _NO
        if len(uids.ranges) <= _INLINE_RANGES:
            return _balanced("OR", [f"({_KEY_UID} BETWEEN {low:d} AND {high:d})" for low, high in uids.ranges], _NO)
        name = f"uids{len(self.plan.sets)}"
        self.plan.sets[name] = uids
        high = f"SELECT high FROM temp.{name} WHERE low <= {_KEY_UID} ORDER BY low DESC LIMIT 1"
        return f"({_KEY_UID} <= ifnull(({high}), 0))"


def _balanced(word: str, terms: list[str], empty: str) -> str:
    """Terms joined pairwise, so that a thousand of them stay below SQLite's limit on expression depth."""
    terms = list(dict.fromkeys(terms))
    while len(terms) > 1:
        paired = [f"({a} {word} {b})" for a, b in zip(terms[::2], terms[1::2], strict=False)]
        terms = paired + terms[len(paired) * 2 :]
    return terms[0] if terms else empty


def _days(column: str, first: int | None, end: int | None, *, seconds: bool) -> str:
    def number(day: int) -> int:
        return (day - _EPOCH_DAY) * _DAY_S if seconds else day

    terms = [f"{column} IS NOT NULL"]
    if first is not None:
        terms.append(f"{column} >= {number(first):d}")
    if end is not None:
        terms.append(f"{column} < {number(end):d}")
    return f"ifnull({' AND '.join(terms)}, 0)"
