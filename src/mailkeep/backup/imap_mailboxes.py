"""Which mailboxes another server has: LIST in its newest form that the server knows, else LIST, LSUB, XLIST and STATUS.

It knows RFC 5258, 5819, 6154 and what came before them, and gives plain values. The hard part is that servers say the
same in many ways: Gmail's XLIST names, `\\HasNoChildren` in any case, a mailbox listed twice.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from mailkeep import log
from mailkeep.backup.imap_link import ImapLink, Reply
from mailkeep.errors import ProtocolError
from mailkeep.wire import imap_answer as answer
from mailkeep.wire import imap_command as command

_log = log.get("backup")

STATUS_DEPTH: Final = 50  # STATUS commands in flight: some servers open each mailbox for it
MAILBOXES_MAX: Final = 200_000

_USES: Final = {
    "\\all": "\\All",
    "\\archive": "\\Archive",
    "\\drafts": "\\Drafts",
    "\\flagged": "\\Flagged",
    "\\important": "\\Important",
    "\\junk": "\\Junk",
    "\\sent": "\\Sent",
    "\\trash": "\\Trash",
    # XLIST's words
    "\\allmail": "\\All",
    "\\spam": "\\Junk",
    "\\starred": "\\Flagged",
}
UINT32_MAX: Final = (1 << 32) - 1
INT63_MAX: Final = (1 << 63) - 1
# mod-sequence-value and number64 have 63 bits, nz-number has 32 (RFC 9051 section 9, RFC 7162 section 7)
_MOST: Final = {"HIGHESTMODSEQ": INT63_MAX, "SIZE": INT63_MAX, "APPENDLIMIT": INT63_MAX, "DELETED-STORAGE": INT63_MAX}
_UNSELECTABLE: Final = frozenset(("\\noselect", "\\nonexistent"))


@dataclass(frozen=True, slots=True)
class RemoteMailbox:
    """One line of LIST with what else the server said of it."""

    name: str  # as the server names it, decoded; its separator is still in it
    raw: bytes
    separator: str | None  # None: a flat name
    attributes: frozenset[str]  # lower case, with the backslash
    special_use: str | None  # "\\Sent", as RFC 6154 spells it
    subscribed: bool
    selectable: bool
    # MESSAGES UIDNEXT UIDVALIDITY HIGHESTMODSEQ SIZE APPENDLIMIT (numbers) and MAILBOXID (text), as far as it said
    status: Mapping[str, Any] | None = None


async def list_mailboxes(link: ImapLink, *, status: bool) -> list[RemoteMailbox]:
    """All mailboxes, each once, in the server's order. Raises RemoteError, RemoteBusy, Unreachable, ProtocolError."""
    items = _status_items(link) if status else ()
    answers = await _extended(link, items)
    if answers is None:
        answers = await _plain(link)
    listed: dict[bytes, answer.Listed] = {}
    attributes: dict[bytes, frozenset[str]] = {}
    subscribed: set[bytes] = set()
    told: dict[bytes, Mapping[str, Any]] = {}
    for each in answers:
        if isinstance(each, answer.Listed):
            if each.kind == "LSUB" or "\\subscribed" in each.attributes:
                subscribed.add(each.raw)
            if each.kind != "LSUB":
                if each.kind == "LIST" or each.raw not in listed:
                    listed[each.raw] = each
                attributes[each.raw] = attributes.get(each.raw, frozenset()) | each.attributes
        elif isinstance(each, answer.MailboxStatus):
            told[each.raw] = _checked(each.items)
    if len(listed) > MAILBOXES_MAX:
        raise ProtocolError(f"{link.host} lists more than {MAILBOXES_MAX} mailboxes")
    # No name has a NUL in it (RFC 9051 section 9), and with one it could be taken for a name of our own (recognise.py).
    sane = {raw: each for raw, each in listed.items() if each.name and "\0" not in each.name}
    if len(sane) < len(listed):
        _log.warning("mailboxes left out: their names cannot be", host=link.host, count=len(listed) - len(sane))
    found = [_mailbox(each, attributes[raw], raw in subscribed) for raw, each in sane.items()]
    if status:
        missing = [each for each in found if each.selectable and each.raw not in told]
        told |= await _ask_status(link, missing, items)
        found = [replace(each, status=told.get(each.raw)) for each in found]
    return found


def _status_items(link: ImapLink) -> tuple[str, ...]:
    items = ["MESSAGES", "UIDNEXT", "UIDVALIDITY"]
    if link.enabled & {"QRESYNC", "CONDSTORE"} or ("CONDSTORE" in link.capabilities and link.quirks.trust_condstore):
        items.append("HIGHESTMODSEQ")
    items += ["SIZE"] if "STATUS=SIZE" in link.capabilities else []
    items += ["MAILBOXID"] if "OBJECTID" in link.capabilities else []
    items += ["APPENDLIMIT"] if "APPENDLIMIT" in link.capabilities else []
    return tuple(items)


def ask_ahead(link: ImapLink) -> None:
    """Put the question of `list_mailboxes(status=True)` before it is called, where it is one."""
    asked = _for_all(link, _status_items(link))
    if asked is not None:
        link.ahead = (asked, link.start(asked))


async def _extended(link: ImapLink, items: tuple[str, ...]) -> list[answer.Answer] | None:
    """As `_for_all` asks; None where the server does not know it."""
    asked, ahead = _for_all(link, items), link.ahead
    link.ahead = None
    if asked is None:
        return None
    # What the server has said of itself meanwhile may make it another question.
    reply = await (ahead[1] if ahead is not None and ahead[0] == asked else link.start(asked))
    return reply.answers if reply.ok else None


def _for_all(link: ImapLink, items: tuple[str, ...]) -> command.List | None:
    """One LIST for everything (RFC 5258, 5819); None where the server does not know it."""
    capabilities = link.capabilities
    if not capabilities & {"LIST-EXTENDED", "IMAP4REV2"}:
        return None
    returns = {"SUBSCRIBED"} | ({"SPECIAL-USE"} if capabilities & {"SPECIAL-USE", "IMAP4REV2"} else set())
    known = items if capabilities & {"LIST-STATUS", "IMAP4REV2"} else ()
    return command.List("LIST", "", ("*",), returns=frozenset(returns), status=known)


async def _plain(link: ImapLink) -> list[answer.Answer]:
    kinds: list[Literal["LIST", "LSUB", "XLIST"]] = ["LIST", "LSUB"]
    if "XLIST" in link.capabilities and "SPECIAL-USE" not in link.capabilities:
        kinds.append("XLIST")
    asked: list[asyncio.Future[Reply]] = []
    for kind in kinds:
        asked.append(link.start(command.List(kind, "", ("*",))))
    answers = list(link.checked(await asked[0], "LIST").answers)
    for each in asked[1:]:
        answers += (await each).answers
    return answers


async def _ask_status(
    link: ImapLink, mailboxes: list[RemoteMailbox], items: tuple[str, ...]
) -> dict[bytes, Mapping[str, Any]]:
    """STATUS of each, pipelined; those that are refused are left out."""
    told: dict[bytes, Mapping[str, Any]] = {}
    wanted = {each.raw for each in mailboxes}

    def take(each: answer.Answer) -> None:
        if isinstance(each, answer.MailboxStatus) and each.raw in wanted:
            told[each.raw] = _checked(each.items)

    for start in range(0, len(mailboxes), STATUS_DEPTH):
        some = mailboxes[start : start + STATUS_DEPTH]
        asked = [link.start(command.Status(each.name, items), sink=take) for each in some]
        for each in asked:
            await each
    return told


def _checked(items: Mapping[str, int | str]) -> Mapping[str, Any]:
    """Numbers that can be such numbers, and the one text."""
    return {
        name: value
        for name, value in items.items()
        if (isinstance(value, int) and value <= _MOST.get(name, UINT32_MAX)) or name == "MAILBOXID"
    }


def _mailbox(each: answer.Listed, attributes: frozenset[str], subscribed: bool) -> RemoteMailbox:
    use = next((_USES[name] for name in sorted(attributes) if name in _USES), None)
    selectable = not attributes & _UNSELECTABLE
    return RemoteMailbox(each.name, each.raw, each.separator, attributes, use, subscribed, selectable)
