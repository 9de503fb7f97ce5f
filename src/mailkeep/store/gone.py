"""What the other server no longer has: it stays here, marked, and can be put out of sight.

A message that vanished at its source carries the keyword GONE, so that every client sees it and can search for it. In
an account that is set to "hide" it is moved to a twin mailbox `Gone/<name>`, which is \\Hidden: no door lists or opens
it. A move keeps origin and UIDL, so the message is known wherever it lies: nothing is pulled twice, nothing is lost.

A twin is made when the first message goes there, without the levels above it, and stays. It follows a mailbox that is
renamed (`tree`); where the mailbox itself was deleted meanwhile, showing what is gone makes it again.
"""

from collections.abc import Sequence

from mailkeep.mail.mailbox_name import check_name
from mailkeep.store import placing, tree
from mailkeep.store.ledger import Ledger
from mailkeep.store.mailboxes import GONE_ROOT, HIDDEN, SEPARATOR, twin_name


def hide(ledger: Ledger, mailbox_id: int, uids: Sequence[int]) -> list[tuple[int, int]]:
    box = ledger.live_box(mailbox_id)
    if box.hidden or not uids:
        return []
    name = twin_name(box.name)
    twin = ledger.find_box(name)
    if twin is None:
        twin = tree.create_alone(ledger, check_name(name), special_use=(HIDDEN,))
    return placing.move(ledger, box.id, uids, twin.id)


def show(ledger: Ledger, mailbox_id: int, uids: Sequence[int]) -> list[tuple[int, int]]:
    twin = ledger.live_box(mailbox_id)
    name = twin.name.removeprefix(GONE_ROOT + SEPARATOR)
    if not twin.hidden or name == twin.name or not uids:
        return []
    box = ledger.find_box(name) or tree.create(ledger, name, special_use=(), subscribe=True)
    return placing.move(ledger, twin.id, uids, box.id)
