"""What a remote's row remembers of its last run, for `status` and for who schedules runs."""

from contextlib import suppress
from typing import Any

import msgspec

from mailkeep.backup.ledger import RemoteReport
from mailkeep.backup.settings import Remote
from mailkeep.errors import BadCredentials
from mailkeep.store.store import Store


def read_state(data: bytes | None) -> dict[str, Any]:
    """`last`: the last run in short; `equal_at`: when sets were last equal, Unix seconds. Empty: never run."""
    with suppress(msgspec.MsgspecError):
        return msgspec.json.decode(data or b"{}", type=dict[str, Any])
    return {}


def save_report(store: Store, remote: Remote, report: RemoteReport) -> None:
    """Keep a run's outcome beside the remote."""
    row = store.remotes.find(remote.name)  # as it is now: a new secret may have been given meanwhile
    state = read_state(remote.state if row is None else row.state)
    facts = report.facts()
    for name in ("remote", "account", "host", "notes", "left_out", "removed"):
        del facts[name]
    facts["lacking"] = report.total("lacking")
    # Not to be tried again by itself; a run that did not get as far as to log in changes nothing of that.
    got_in = report.failure is None or bool(report.folders)
    facts["refused"] = isinstance(report.failure, BadCredentials) or (not got_in and _is_refused(state))
    facts["folders"] = [
        {
            "folder": folder.name,
            "mailbox": folder.mailbox,
            "server": folder.server,
            "kept": folder.kept,
            "lacking": folder.lacking,
            "gone": folder.gone,
            "equal": folder.equal,
            "error": folder.error,
        }
        for folder in report.folders
    ]
    state["last"] = facts
    if report.equal:
        state["equal_at"] = report.started
    # Names that go out as the server wrote them are a kind of str.
    store.remotes.update(remote.id, state=msgspec.json.encode(state, enc_hook=str))


def _is_refused(state: dict[str, Any]) -> bool:
    last = state.get("last")
    return isinstance(last, dict) and bool(last.get("refused"))


def forget_refusal(data: bytes | None) -> bytes:
    """The state after a new secret was given: it may be tried by itself again."""
    state = read_state(data)
    if isinstance(state.get("last"), dict):
        state["last"]["refused"] = False
    return msgspec.json.encode(state)
