"""What a remote's row remembers of its last run, for `status` and for who schedules runs."""

from contextlib import suppress
from typing import Any, Final

import msgspec

from mailkeep.backup.books import read_cursor
from mailkeep.backup.ledger import RemoteReport
from mailkeep.backup.settings import Remote
from mailkeep.backup.sync_ledger import COUNTS, SyncReport
from mailkeep.errors import BadCredentials
from mailkeep.store.store import Store

_OF_SYNC: Final = ("equal", "started", "seconds", "error", "stopped", *COUNTS)


def read_state(data: bytes | None) -> dict[str, Any]:
    """`last`: the last run in short; `equal_at`: when sets were last equal, Unix seconds. Empty: never run."""
    with suppress(msgspec.MsgspecError):
        return msgspec.json.decode(data or b"{}", type=dict[str, Any])
    return {}


def save_report(store: Store, remote: Remote, report: RemoteReport) -> None:
    """Keep a run's outcome beside the remote."""
    facts = report.facts()
    for name in ("remote", "account", "host", "notes", "left_out", "removed"):
        del facts[name]
    facts["lacking"] = report.total("lacking")
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
    _save(store, remote, facts, report)


def save_sync(store: Store, remote: Remote, report: SyncReport) -> None:
    """The same of a two-way run: of each folder, what the server had when it was last seen, and what is here."""
    account = store.account(remote.account)
    ours = {box.id: box for box in account.mailboxes()}
    told = {folder.name: folder for folder in report.folders}
    folders: list[dict[str, Any]] = []
    for box in account.remote_boxes(remote.id):
        if "\0" in box.name or box.mailbox not in ours:  # of another numbering; or removed here
            continue
        mailbox, folder = ours[box.mailbox], told.get(box.name)
        folders.append(
            {
                "folder": box.name,
                "mailbox": mailbox.name,
                "server": read_cursor(box.cursor).messages,
                "kept": len(account.snapshot(mailbox.id).uids),
                "lacking": sum(folder.missing.values()) if folder is not None else 0,
                "gone": 0,
                "equal": folder is None or folder.equal,
                "error": folder.error if folder is not None else None,
            }
        )
    facts = {name: value for name, value in report.facts().items() if name in _OF_SYNC}
    sums = {name: sum(each[name] for each in folders) for name in ("server", "kept", "lacking", "gone")}
    _save(store, remote, {"both_ways": True, **facts, **sums, "folders": folders}, report)


def _save(store: Store, remote: Remote, last: dict[str, Any], report: RemoteReport | SyncReport) -> None:
    row = store.remotes.find(remote.name)  # as it is now: a new secret may have been given meanwhile
    state = read_state(remote.state if row is None else row.state)
    # Not to be tried again by itself; a run that did not get as far as to log in changes nothing of that.
    got_in = report.failure is None or bool(report.folders)
    last["refused"] = isinstance(report.failure, BadCredentials) or (not got_in and _is_refused(state))
    state["last"] = last
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
