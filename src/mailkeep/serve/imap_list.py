"""LIST and LSUB: which names, with which attributes (RFC 9051 section 6.3.9, RFC 5258, 5819, 6154).

Works on two plain facts, the mailboxes and the subscribed names, and on nothing else. The hard idea: a name may be
listed though no mailbox has it. It may be subscribed only, or it may be a level above a mailbox; both are
\\NonExistent, and RECURSIVEMATCH asks for a third kind, names whose descendants are wanted (CHILDINFO).
"""

from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from dataclasses import dataclass

from mailkeep.mail.mailbox_name import SEPARATOR, compile_pattern
from mailkeep.serve.imap_peer import Peer, Steps
from mailkeep.serve.imap_reply import Reply, ok
from mailkeep.store import Mailbox
from mailkeep.wire import imap_response
from mailkeep.wire.imap_command import List

_NO_NAME = ""
_LINES = 50  # written in one piece
_NAMES = 16  # looked at, in vain, between two looks at the clock


@dataclass(frozen=True, slots=True)
class Line:
    """One LIST response."""

    name: str
    attributes: tuple[str, ...]
    childinfo: tuple[str, ...] = ()
    mailbox: Mailbox | None = None


def list_mailboxes(peer: Peer, command: List) -> Steps | Reply:
    """LIST and LSUB."""
    done = ok(command.kind.encode("ascii") + b" completed")
    if not command.extended and command.patterns == (_NO_NAME,):
        peer.write(imap_response.list_root(command.kind))
        return done
    return _answer(peer, command, done)


def _answer(peer: Peer, command: List, done: Reply) -> Generator[bytes, None, Reply]:
    account = peer.account
    mailboxes = {mailbox.name: mailbox for mailbox in account.mailboxes()}
    subscribed = account.subscriptions()
    utf8 = peer.enabled.rev2 or peer.enabled.utf8
    piece: list[bytes] = []
    if command.kind == "LSUB":
        names = lsub_lines(command, subscribed)
    else:
        names = list_lines(command, mailboxes, subscribed)
    passed = 0
    for line in names:
        if line is None:
            passed += 1
            if passed % _NAMES == 0:
                yield b""
            continue
        piece.append(
            imap_response.list_line(line.attributes, line.name, kind=command.kind, utf8=utf8, childinfo=line.childinfo)
        )
        if command.status and line.mailbox is not None:
            values = status_values(peer, line.mailbox, command.status)
            piece.append(imap_response.status_line(line.name, values, utf8=utf8))
        if len(piece) >= _LINES:
            yield b"".join(piece)
            piece.clear()
    if piece:
        yield b"".join(piece)
    return done


def status_values(peer: Peer, mailbox: Mailbox, items: Collection[str]) -> dict[str, int | str]:
    """What STATUS tells of a mailbox, in the order asked (RFC 9051 section 6.3.11, RFC 7162, 8438, 8474, 7889)."""
    if "HIGHESTMODSEQ" in items:
        peer.enabled.condstore = True  # RFC 7162 section 3.1: a CONDSTORE enabling command
    known: dict[str, int | str] = {
        "MESSAGES": mailbox.messages,
        "RECENT": max(0, min(mailbox.messages, mailbox.uidnext - mailbox.recent_from)),
        "UIDNEXT": mailbox.uidnext,
        "UIDVALIDITY": mailbox.uidvalidity,
        "UNSEEN": mailbox.unseen,
        "DELETED": mailbox.deleted,
        "SIZE": mailbox.size,
        "HIGHESTMODSEQ": mailbox.highestmodseq,
        "MAILBOXID": f"({mailbox_objectid(mailbox.id)})",
        "APPENDLIMIT": peer.services.limits.message_size_max,
    }
    return {item: known[item] for item in items}


def mailbox_objectid(mailbox_id: int) -> str:
    """MAILBOXID (RFC 8474 section 4)."""
    return f"F{mailbox_id}"


def _matcher(command: List) -> Callable[[str], bool]:
    tests = [compile_pattern(command.reference, pattern) for pattern in command.patterns if pattern]
    return tests[0] if len(tests) == 1 else lambda name: any(test(name) for test in tests)


def _parents(name: str) -> Iterator[str]:
    """The levels above a name, nearest first."""
    at = name.rfind(SEPARATOR)
    while at > 0:
        yield name[:at]
        at = name.rfind(SEPARATOR, 0, at)


def list_lines(command: List, mailboxes: Mapping[str, Mailbox], subscribed: Collection[str]) -> Iterator[Line | None]:
    """What LIST answers, sorted as the store sorts mailboxes; None for each name that no pattern matches, since
    looking takes its time."""
    matches = _matcher(command)
    with_children = {parent for name in mailboxes for parent in _parents(name)}
    if "SUBSCRIBED" in command.select:
        wanted = set(subscribed)
    else:
        wanted = {*mailboxes, *(() if command.select - {"REMOTE"} else with_children)}
    if "SPECIAL-USE" in command.select:
        wanted = {name for name in wanted if name in mailboxes and mailboxes[name].special_use}
    criteria = tuple(sorted(command.select - {"RECURSIVEMATCH", "REMOTE"}))
    above: set[str] = set()  # of wanted names
    hidden: set[str] = set()  # above wanted names that the pattern does not match
    if "RECURSIVEMATCH" in command.select:
        above = {parent for name in wanted for parent in _parents(name)}
        hidden = {parent for name in wanted if not matches(name) for parent in _parents(name)}
    tell_subscribed = "SUBSCRIBED" in command.select or "SUBSCRIBED" in command.returns
    for name in sorted(wanted | hidden, key=_order):
        if not matches(name):
            yield None
            continue
        mailbox = mailboxes.get(name)
        attributes = [] if mailbox is not None else ["\\NonExistent", "\\Noselect"]
        attributes.append("\\HasChildren" if name in with_children else "\\HasNoChildren")
        if mailbox is not None:
            attributes += mailbox.special_use
        if tell_subscribed and name in subscribed:
            attributes.append("\\Subscribed")
        yield Line(name, tuple(attributes), criteria if name in above else (), mailbox)


def lsub_lines(command: List, subscribed: Collection[str]) -> Iterator[Line | None]:
    """What LSUB answers, None for each name that the pattern does not match.

    `\\Noselect` means "not itself subscribed" here (RFC 3501 section 6.3.9).
    """
    matches = _matcher(command)
    above: set[str] = set()
    if any(pattern.endswith("%") for pattern in command.patterns):
        above = {parent for name in subscribed if not matches(name) for parent in _parents(name)}
    for name in sorted({*subscribed, *above}, key=_order):
        yield Line(name, () if name in subscribed else ("\\Noselect",)) if matches(name) else None


def _order(name: str) -> tuple[bool, str]:
    return name.split(SEPARATOR, 1)[0] != "INBOX", name
