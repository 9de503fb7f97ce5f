"""Asking a POP3 server again: is everything that it has here? Changes nothing, there or here.

The pull believes its rows; this believes that a row tells which message is meant, and looks each one up in the store.
What no UIDL tells apart is told by its header, which is all that POP3 gives without fetching the mail itself.
"""

import asyncio
import time

from mailkeep.backup.context import Context
from mailkeep.backup.ledger import REASONS, REMOVED_HERE, FolderLedger, RemoteReport
from mailkeep.backup.login import secret_of
from mailkeep.backup.pop3_identity import header_print, match, origin, read_row, trusted, uidl_key
from mailkeep.backup.pop3_pull import INBOX
from mailkeep.backup.pop3_remote import Drop, open_pop3
from mailkeep.backup.quirks import quirks_for
from mailkeep.backup.settings import Remote
from mailkeep.errors import ConfigError, LoginError, ProtocolError, RemoteError, StoreError, Unreachable
from mailkeep.store.account import Account
from mailkeep.store.remote_rows import State

UNKNOWN = "not pulled yet"


async def prove(context: Context, remote: Remote) -> RemoteReport:
    """Compare. The report's `error` says why it could not."""
    account = context.store.account(remote.account)
    report = RemoteReport(remote.name, account.info.name, remote.settings.host, context.now())
    begun = time.monotonic()
    try:
        await _prove(context, remote, account, report.folder(INBOX))
    except (LoginError, RemoteError, Unreachable, ProtocolError, StoreError, ConfigError) as error:
        report.error, report.failure = error.text, error
    for folder in report.folders:
        folder.close()
    report.seconds = time.monotonic() - begun
    return report


async def _prove(context: Context, remote: Remote, account: Account, ledger: FolderLedger) -> None:
    boxes = [box for box in account.remote_boxes(remote.id) if box.name == INBOX]
    found = await asyncio.to_thread(account.remote_rows, boxes[0].id) if boxes else []
    rows = [row for row in (read_row(*each) for each in found) if row is not None]
    ledger.mailbox = next((box.name for box in account.mailboxes() if boxes and box.id == boxes[0].mailbox), None)
    ledger.way = "compared"
    given = await secret_of(context.store, remote)
    connection = await open_pop3(remote.settings, given, quirks_for(remote.settings))
    try:
        drop = await connection.drop()
        matched = match(drop, rows)
        for number, header in (await connection.headers(matched.candidates(drop.sizes))).items():
            matched.meet_header(number, header_print(header, drop.sizes.get(number, 0)))
        await connection.leave()
    except BaseException:
        connection.abort()
        raise
    ledger.server = len(drop.numbers)
    keys = {number: row.key for number, row in matched.known.items() if row.state == State.KEPT}
    believed = trusted(drop)
    keys |= {number: uidl_key(believed[number]) for number in matched.fresh if number not in keys}
    not_kept = {number: row for number, row in matched.known.items() if row.state != State.KEPT}
    for number, row in not_kept.items():
        ledger.book(number, REASONS[row.state], row.reason or None)
    await asyncio.to_thread(_look_up, account, remote, ledger, drop=drop, keys=keys, booked=set(not_kept))


def _look_up(
    account: Account, remote: Remote, ledger: FolderLedger, *, drop: Drop, keys: dict[int, str], booked: set[int]
) -> None:
    origins = {number: origin(remote.id, key) for number, key in keys.items()}
    places = account.find_origins(list(origins.values()))
    for number in drop.numbers:
        place = places.get(origins.get(number, b""))
        if number in booked:
            continue
        if place is None:
            ledger.book(number, UNKNOWN)
        elif place.live:
            ledger.kept += 1
        else:
            ledger.book(number, REMOVED_HERE)
