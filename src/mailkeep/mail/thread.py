"""Conversations: messages put together by References and, where those are missing, by subject (RFC 5256).

Knows the base subject (section 2.1) and the REFERENCES algorithm (section 3); nothing of where messages are. It works
on what was taken out of the messages before, so that a million of them can be cut into independent groups first:
whoever shares no id and no base subject with anybody never meets.

The hard idea is that hostile References must neither loop nor cost more than linear time: whoever has children becomes
a child itself only after a walk up the tree of at most WALK_MAX steps, and nothing here recurses.
"""

import re
from collections.abc import Hashable, Iterator, Sequence
from typing import Final, NamedTuple

WALK_MAX: Final = 500  # levels above a message to which a conversation that was found before it is hung
SUBJECT_MAX: Final = 2000  # characters of a subject that are looked at
REFERENCES_MAX: Final = 200  # ids of a message that are looked at: its first, and the last ones

_ID = re.compile(r"<([^<>\s]{1,998})>")
_SPACE = re.compile(r"\s+")

# subj-refwd = ("re" / ("fw" ["d"])) *WSP [subj-blob] ":", subj-blob = "[" *BLOBCHAR "]" *WSP (RFC 5256 section 5)
_BLOB: Final = r"\[[^\[\]]*\][ ]*"
_REPLY: Final = r"(?:{words})[ ]*(?:" + _BLOB + r")?:"
_LEADER = re.compile(r"(?:" + _BLOB + r")*" + _REPLY.format(words="re|fwd?"), re.IGNORECASE)
# What other languages' programs write: German, Dutch, Scandinavian, Finnish, French, Italian, Polish, Portuguese,
# Spanish, Turkish, Hungarian, Chinese. They write a full-width colon, too.
_ELSEWHERE: Final = "re|fwd?|aw|wg|antw|doorst|sv|vs|vb|vl|tr|rif|r|i|odp|pd|enc|res|rv|ynt|ilt|vá|továbbítás"
_LEADER_ANYWHERE = re.compile(
    r"(?:" + _BLOB + r")*(?:" + _REPLY.format(words=_ELSEWHERE) + r"|(?:回复|回覆|答复|答覆|转发|轉寄|轉發)[ ]*[:：])",
    re.IGNORECASE,
)
_ONE_BLOB = re.compile(_BLOB)
_TRAILER = re.compile(r"(?:[ ]|\(fwd\))+\Z", re.IGNORECASE)


class Subject(NamedTuple):
    """A base subject, and whether the whole said that it answers or forwards something."""

    base: str
    reply: bool


class Entry(NamedTuple):
    """A message to thread. Ids may be of any hashable kind; `date` orders siblings."""

    message_id: Hashable | None
    references: Sequence[Hashable]  # oldest first
    subject: Hashable  # of the base subject; a false one is none
    reply: bool
    date: float


class Node:
    """A message of a conversation; `entry` is its place in the input, or None: a message that is not there."""

    __slots__ = ("children", "entry", "parent")

    def __init__(self, entry: int | None) -> None:
        self.entry = entry
        self.parent: Node | None = None
        self.children: list[Node] = []


def base_subject(subject: str, *, anywhere: bool = False) -> Subject:
    """The base subject (RFC 5256 section 2.1). `anywhere`: also without the prefixes of other languages, as `AW:`."""
    text = _SPACE.sub(" ", subject[:SUBJECT_MAX])
    leader = _LEADER_ANYWHERE if anywhere else _LEADER
    reply = False
    while True:
        trailer = _TRAILER.search(text)
        if trailer is not None:
            reply = reply or "(" in trailer[0]
            text = text[: trailer.start()]
        text, led = _without_leaders(text, leader)
        reply = reply or led
        if not (text[:5].lower() == "[fwd:" and text.endswith("]")):
            return Subject(text, reply)
        text, reply = text[5:-1], True


def _without_leaders(text: str, leader: re.Pattern[str]) -> tuple[str, bool]:
    pos, reply = 0, False
    while True:
        while text.startswith(" ", pos):
            pos += 1
        match = leader.match(text, pos)
        if match is not None:
            reply = True
        else:
            # A list's name in brackets goes, but never all that there is.
            match = _ONE_BLOB.match(text, pos)
            if match is None or not text[match.end() :].strip(" "):
                return text[pos:], reply
        pos = match.end()


def thread_ids(references: str, in_reply_to: str) -> list[str]:
    """The ids that a message refers to, oldest first, without angles; In-Reply-To's first when References has none."""
    found = list(dict.fromkeys(_ID.findall(references))) or _ID.findall(in_reply_to)[:1]
    return found if len(found) <= REFERENCES_MAX else [found[0], *found[1 - REFERENCES_MAX :]]


def conversations(entries: Sequence[Entry], *, only_replies: bool = False) -> list[Node]:
    """The conversations by RFC 5256's REFERENCES, in the order of their first dates, all siblings by date.

    `only_replies`: messages of one subject are gathered only when one of the two answers or forwards, so that a
    hundred invoices, each its own beginning, do not become one conversation.
    """
    roots = _pruned(_linked(entries))
    roots.sort(key=lambda node: _when(node, entries))
    roots = _gathered(roots, entries, only_replies=only_replies)
    for root in roots:
        for node in _all_below(root):
            node.children.sort(key=lambda child: _when(child, entries))
    roots.sort(key=lambda node: _when(node, entries))
    return roots


def flatten(root: Node) -> Iterator[tuple[int, int]]:
    """Each message of a conversation as (entry, depth), parents first. A missing root gives its place to its first."""
    shift = 1 if root.entry is None else 0
    first = True
    stack = [(root, 0)]
    while stack:
        node, depth = stack.pop()
        if node.entry is not None:
            yield node.entry, 0 if first else max(depth, shift)
            first = False
        stack += [(child, depth + 1) for child in reversed(node.children)]


# ---- step 1: links


def _linked(entries: Sequence[Entry]) -> list[Node]:
    """Every message and every id that is referred to, linked as the references say; those without a parent."""
    known: dict[Hashable, Node] = {}
    nodes: list[Node] = []
    for number, entry in enumerate(entries):
        own = known.get(entry.message_id) if entry.message_id is not None else None
        if own is None or own.entry is not None:  # an id that was there before is no id
            own = Node(number)
            nodes.append(own)
            if entry.message_id is not None:
                known.setdefault(entry.message_id, own)
        own.entry = number
        before: Node | None = None
        for reference in entry.references:
            node = known.get(reference)
            if node is None:
                node = known[reference] = Node(None)
                nodes.append(node)
            if before is not None and node.parent is None:
                _link(before, node)
            before = node
        if own.parent is not before:
            # An earlier guess, of a cut-short References field, is worth less than what the message says itself.
            _unlink(own)
            if before is not None:
                _link(before, own)
    return [node for node in nodes if node.parent is None]


def _link(parent: Node, child: Node) -> None:
    if parent is child:
        return
    if child.children:  # else it is above nobody
        above = parent.parent
        for _ in range(WALK_MAX):
            if above is None or above is child:
                break
            above = above.parent
        if above is not None:
            return
    child.parent = parent
    parent.children.append(child)


def _unlink(node: Node) -> None:
    if node.parent is not None:
        node.parent.children.remove(node)
        node.parent = None


# ---- steps 2 and 3: what is not there


def _pruned(roots: list[Node]) -> list[Node]:
    """Messages that are not there give way to their children; at the top only to a single one."""
    kept = []
    for root in roots:
        for node in reversed(list(_all_below(root))):
            children: list[Node] = []
            for child in node.children:
                children += [child] if child.entry is not None else child.children
            for child in children:
                child.parent = node
            node.children = children
        if root.entry is None and len(root.children) == 1:
            root.children[0].parent = None
            kept.append(root.children[0])
        elif root.entry is not None or root.children:
            kept.append(root)
    return kept


def _all_below(root: Node) -> Iterator[Node]:
    """Every node, parents before children."""
    stack = [root]
    while stack:
        node = stack.pop()
        yield node
        stack += reversed(node.children)


def _when(node: Node, entries: Sequence[Entry]) -> tuple[float, int]:
    """What siblings are sorted by: the date, then the order of the input. One that is not there: its first child's."""
    if node.entry is not None:
        return entries[node.entry].date, node.entry
    return min(_when(child, entries) for child in node.children)


# ---- step 5: subjects


def _gathered(roots: list[Node], entries: Sequence[Entry], *, only_replies: bool) -> list[Node]:
    """Conversations with one base subject become one (RFC 5256 section 3, step 5)."""
    table: dict[Hashable, Node] = {}
    for root in roots:
        subject, reply = _subject(root, entries)
        other = table.get(subject)
        if subject and (
            other is None
            or (root.entry is None and other.entry is not None)
            or (not reply and other.entry is not None and _subject(other, entries)[1])
        ):
            table[subject] = root
    gone: set[int] = set()
    made: list[Node] = []
    for root in roots:
        subject, reply = _subject(root, entries)
        other = table.get(subject) if subject else None
        if other is None or other is root:
            continue
        if root.entry is None and other.entry is None:
            _adopt(other, root.children)
        elif other.entry is None or (reply and not _subject(other, entries)[1]):
            _adopt(other, [root])
        elif only_replies and not reply:
            continue
        else:
            both = table[subject] = Node(None)
            made.append(both)
            _adopt(both, [other, root])
            gone.add(id(other))
        gone.add(id(root))
    return [node for node in (*roots, *made) if id(node) not in gone]


def _subject(node: Node, entries: Sequence[Entry]) -> tuple[Hashable, bool]:
    """Of a conversation: its root's, or that of the first child of one that is not there."""
    first = node if node.entry is not None else min(node.children, key=lambda child: _when(child, entries))
    if first.entry is None:
        return "", False
    entry = entries[first.entry]
    return entry.subject, entry.reply


def _adopt(parent: Node, children: Sequence[Node]) -> None:
    for child in children:
        child.parent = parent
    parent.children += children
