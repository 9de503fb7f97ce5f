"""Where mail lives: accounts, mailboxes, messages, on disk and safe. See `store` for the picture.

The names below are the whole of what other packages use, with `check`, `repair` and `collect` beside them.
"""

from mailkeep.store.account import Account, AccountInfo, Usage
from mailkeep.store.accounts import Directory
from mailkeep.store.arrivals import Arrival
from mailkeep.store.flagsets import FlagSet
from mailkeep.store.index import Batch, MailboxIndex
from mailkeep.store.mailboxes import GONE, Mailbox
from mailkeep.store.messages import Changes
from mailkeep.store.offload import Offload
from mailkeep.store.placing import Appended, StoreResult
from mailkeep.store.remotes import (
    Origin,
    Recognisable,
    RemoteBox,
    RemoteRow,
    Remotes,
    RemoteUids,
    State,
    origin_of,
    pop_origin_of,
)
from mailkeep.store.staging import Staged, Staging
from mailkeep.store.store import Store
from mailkeep.store.transaction import Transaction

__all__ = [
    "GONE",
    "Account",
    "AccountInfo",
    "Appended",
    "Arrival",
    "Batch",
    "Changes",
    "Directory",
    "FlagSet",
    "Mailbox",
    "MailboxIndex",
    "Offload",
    "Origin",
    "Recognisable",
    "RemoteBox",
    "RemoteRow",
    "RemoteUids",
    "Remotes",
    "Staged",
    "Staging",
    "State",
    "Store",
    "StoreResult",
    "Transaction",
    "Usage",
    "origin_of",
    "pop_origin_of",
]
