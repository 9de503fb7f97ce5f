"""Commands on mailboxes as such: CREATE, DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE, STATUS, NAMESPACE.

The rules (what INBOX does at RENAME, what becomes of children) are the store's; this file maps commands to them and
their errors to what clients expect.
"""

from mailkeep.mail.mailbox_name import SEPARATOR, check_name
from mailkeep.serve.imap_list import mailbox_objectid, status_values
from mailkeep.serve.imap_peer import Peer
from mailkeep.serve.imap_reply import Reply, no, ok
from mailkeep.wire import imap_response
from mailkeep.wire.imap_command import Create, Delete, Namespace, Rename, Status, Subscribe, Unsubscribe

# RFC 6154 section 2; \All and \Flagged would be views over other mailboxes, which the store does not have.
_USES = {use.lower(): use for use in ("\\Archive", "\\Drafts", "\\Junk", "\\Sent", "\\Trash", "\\Important")}


def _utf8(peer: Peer) -> bool:
    return peer.enabled.rev2 or peer.enabled.utf8


async def create(peer: Peer, command: Create) -> Reply:
    """A trailing separator only says that children will follow (RFC 9051 section 6.3.4). A new mailbox is subscribed
    at once: clients that show subscribed ones only would hide it, and not all of them subscribe.
    """
    asked = command.mailbox.removesuffix(SEPARATOR)
    try:
        uses = tuple(_USES[use.lower()] for use in command.special_use)
    except KeyError:
        return no(b"This special use is not supported", b"USEATTR")
    name = check_name(asked)
    made = await peer.services.offload.write(
        peer.account,
        lambda transaction: transaction.create_mailbox(name, special_use=uses, subscribe=True),
        by=peer.view,
    )
    if name != asked and asked.upper() != "INBOX":  # RFC 9051 section 6.3.4: say what became of it
        peer.write(imap_response.list_line(("\\Subscribed",), name, utf8=_utf8(peer), oldname=asked))
    return ok(b"CREATE completed", b"MAILBOXID (%b)" % mailbox_objectid(made.id).encode("ascii"))


async def delete(peer: Peer, command: Delete) -> Reply:
    mailbox = peer.mailbox(command.mailbox)
    view = peer.view
    selected = view is not None and view.index.mailbox_id == mailbox.id
    if selected:  # not the BYE that other sessions get: this client knows what it does
        peer.unselect()
        peer.write(b"* OK [CLOSED] The selected mailbox is being deleted\r\n")
    await peer.services.offload.write(peer.account, lambda transaction: transaction.delete_mailbox(mailbox.name))
    return ok(b"DELETE completed")


async def rename(peer: Peer, command: Rename) -> Reply:
    old = peer.mailbox_name(command.old)
    new = check_name(command.new.removesuffix(SEPARATOR))
    await peer.services.offload.write(
        peer.account, lambda transaction: transaction.rename_mailbox(old, new), by=peer.view
    )
    return ok(b"RENAME completed")


async def subscribe(peer: Peer, command: Subscribe | Unsubscribe) -> Reply:
    """Names that do not exist may be subscribed, and stay subscribed when a mailbox goes (RFC 9051 section 6.3.7)."""
    on = isinstance(command, Subscribe)
    name = check_name(command.mailbox.removesuffix(SEPARATOR))
    await peer.services.offload.write(peer.account, lambda transaction: transaction.subscribe(name, on))
    return ok(b"SUBSCRIBE completed" if on else b"UNSUBSCRIBE completed")


def status(peer: Peer, command: Status) -> Reply:
    mailbox = peer.mailbox(command.mailbox)
    values = status_values(peer, mailbox, command.items)
    peer.write(imap_response.status_line(command.mailbox, values, utf8=_utf8(peer)))
    return ok(b"STATUS completed")


def namespace(peer: Peer, command: Namespace) -> Reply:
    peer.write(imap_response.namespace())
    return ok(b"NAMESPACE completed")
