"""What clients say all day, answered without objects: NOOP, and UID FETCH of one message's flags.

Read, dispatched and rendered like any other command, each of these costs five times what the sockets take; from one
line to one line it costs less than they do. Nothing here decides anything: whatever is not exactly as expected
(another spelling, news to tell, a wrong state, a \\Recent message) is left to the general path, and a test feeds the
same lines to both and compares.
"""

from typing import Final

from mailkeep.serve import imap_fetch, imap_login
from mailkeep.serve.imap_peer import Peer

_NOOP: Final = imap_login.OK_NOOP.line(b"")
_FETCHED: Final = imap_fetch.OK.line(b"")
# UID FETCH always answers with the UID, so these four ask for the same.
_FLAGS: Final = frozenset((b"(FLAGS)", b"(UID FLAGS)", b"(FLAGS UID)", b"FLAGS"))
_DIGITS: Final = 9  # of a UID; longer ones may be no UIDs


def quick(peer: Peer, line: bytes) -> bytes | None:
    """The whole answer to a command; None: the general path has to look at it."""
    tag, _, said = line.partition(b" ")
    if not tag.isalnum():
        return None
    view = peer.view
    if said == b"NOOP":
        return None if view is not None and view.pending else tag + _NOOP
    if view is None or said[:10] != b"UID FETCH ":
        return None
    number, _, asked = said[10:].partition(b" ")
    if asked not in _FLAGS or not number.isdigit() or len(number) > _DIGITS or number[0] == 0x30:
        return None
    row = view.flags_row(int(number))
    return None if row is None else row + tag + _FETCHED
