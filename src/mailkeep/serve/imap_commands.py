"""One row a command: in which state it is allowed, what runs it, and what may be told around it.

The rules about telling (RFC 9051 section 7.5.1): a command that counts messages by sequence number must not see them
renumbered, neither before nor while it is answered. FETCH, STORE and SEARCH by number therefore keep removals for
later; COPY and MOVE by number may tell them after their work, not before; all others may tell at any time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from mailkeep.serve import (
    imap_change,
    imap_fetch,
    imap_list,
    imap_login,
    imap_mailboxes,
    imap_search,
    imap_select,
)
from mailkeep.serve.imap_peer import Peer, Result
from mailkeep.serve.imap_reply import Reply
from mailkeep.wire import imap_command as wire
from mailkeep.wire.imap_command import Saved, Search


class State(Enum):
    """Where a command is allowed (RFC 9051 section 3); AUTHENTICATED includes SELECTED."""

    ANY = auto()
    NOT_AUTHENTICATED = auto()
    AUTHENTICATED = auto()
    SELECTED = auto()


Decide = Callable[[Any], bool]


def _always(command: object) -> bool:
    return True


def _never(command: object) -> bool:
    return False


def _by_uid(command: wire.Fetch | wire.Store) -> bool:
    return command.uid


def _no_numbers(command: wire.Copy | wire.Move) -> bool:
    return command.uid or isinstance(command.messages, Saved)


def _search_by_uid(command: Search) -> bool:
    return command.uid and not imap_search.names_numbers(command.program)


@dataclass(frozen=True, slots=True)
class Entry:
    """`fresh`: all news may be told before it runs. `renumbers`: removals may be told once it has run.

    `writes`: not in an account that may only be read. SELECT, CLOSE and FETCH are careful by themselves there, APPEND
    is no command of this table, and SUBSCRIBE changes no mail.
    """

    state: State
    run: Callable[[Peer, Any], Result]
    fresh: Decide = _never
    renumbers: Decide = _always
    writes: bool = False


def _idle(peer: Peer, command: wire.Idle) -> Reply:
    """The tagged line comes after DONE (RFC 2177)."""
    peer.write(b"+ idling\r\n")
    return Reply(b"", b"")


_AUTH = State.AUTHENTICATED
_SELECTED = State.SELECTED

COMMANDS: dict[type, Entry] = {
    wire.Capability: Entry(State.ANY, imap_login.capability),
    wire.Noop: Entry(State.ANY, imap_login.noop),
    wire.Logout: Entry(State.ANY, imap_login.logout),
    wire.Id: Entry(State.ANY, imap_login.identify),
    wire.StartTls: Entry(State.NOT_AUTHENTICATED, imap_login.starttls),
    wire.Login: Entry(State.NOT_AUTHENTICATED, imap_login.login),
    wire.Authenticate: Entry(State.NOT_AUTHENTICATED, imap_login.authenticate),
    wire.Enable: Entry(_AUTH, imap_login.enable),
    wire.Select: Entry(_AUTH, imap_select.select),
    wire.Create: Entry(_AUTH, imap_mailboxes.create, writes=True),
    wire.Delete: Entry(_AUTH, imap_mailboxes.delete, writes=True),
    wire.Rename: Entry(_AUTH, imap_mailboxes.rename, writes=True),
    wire.Subscribe: Entry(_AUTH, imap_mailboxes.subscribe),
    wire.Unsubscribe: Entry(_AUTH, imap_mailboxes.subscribe),
    wire.List: Entry(_AUTH, imap_list.list_mailboxes),
    wire.Namespace: Entry(_AUTH, imap_mailboxes.namespace),
    wire.Status: Entry(_AUTH, imap_mailboxes.status),
    wire.Idle: Entry(_AUTH, _idle),
    wire.Check: Entry(_SELECTED, imap_select.check),
    wire.Close: Entry(_SELECTED, imap_select.close),
    wire.Unselect: Entry(_SELECTED, imap_select.unselect),
    wire.Expunge: Entry(_SELECTED, imap_change.expunge, _always, writes=True),
    wire.Search: Entry(_SELECTED, imap_search.search, _search_by_uid, _search_by_uid),
    wire.Fetch: Entry(_SELECTED, imap_fetch.fetch, _by_uid, _by_uid),
    wire.Store: Entry(_SELECTED, imap_change.store, _by_uid, _by_uid, writes=True),
    wire.Copy: Entry(_SELECTED, imap_change.copy, _no_numbers, writes=True),
    wire.Move: Entry(_SELECTED, imap_change.move, _no_numbers, writes=True),
}
