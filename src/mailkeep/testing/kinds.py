"""The named kinds: what each provider's server is known to do, as data.

Facts come from the providers' own pages, from issue threads of other clients and from their logs; a kind shows all
faults of its provider at once, at a rate at which a test meets them. `furnish` makes the mailboxes that an account has
from the start.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mailkeep.testing.faults import FULL, Busy, Faults, PopFaults
from mailkeep.testing.mailboxes import Account


@dataclass(frozen=True, slots=True)
class Kind:
    """A provider: its faults, its mailboxes, and which protocol it is mainly here for."""

    faults: Faults
    furnish: Callable[[Account], None]
    protocol: Literal["imap", "pop3"] = "imap"


def _without(*names: str) -> tuple[str, ...]:
    return tuple(name for name in FULL if name not in names)


_NO_SYNC = ("CONDSTORE", "QRESYNC", "ENABLE", "UTF8=ACCEPT")


def _plain(account: Account) -> None:
    for name in ("Drafts", "Sent", "Junk", "Trash", "Archive"):
        account.create(name, special_use="\\" + name)


def _gmail(account: Account) -> None:
    """A German account: names are localised, special use is not."""
    account.create("[Gmail]", selectable=False)
    account.subscribed.discard("[Gmail]")
    boxes = {
        use: account.create(f"[Gmail]/{name}", special_use="\\" + use)
        for use, name in (
            ("All", "Alle Nachrichten"), ("Drafts", "Entwürfe"), ("Sent", "Gesendet"), ("Flagged", "Markiert"),
            ("Trash", "Papierkorb"), ("Junk", "Spam"), ("Important", "Wichtig"),
        )
    }  # fmt: skip
    labels = {"Drafts": "\\Draft", "Sent": "\\Sent", "Flagged": "\\Starred", "Important": "\\Important"}
    for use, label in labels.items():
        boxes[use].label = label
    account.mailboxes["INBOX"].label = "\\Inbox"
    account.all_mail = boxes["All"]
    account.apart = (boxes["Trash"], boxes["Junk"])


def _exchange(account: Account) -> None:
    """No special use; calendar and contacts appear as mailboxes."""
    for name in (
        "Calendar",
        "Contacts",
        "Deleted Items",
        "Drafts",
        "Junk Email",
        "Notes",
        "Outbox",
        "Sent Items",
        "Tasks",
    ):
        account.create(name)


def _yahoo(account: Account) -> None:
    for name, use in (
        ("Archive", "Archive"),
        ("Bulk", "Junk"),
        ("Draft", "Drafts"),
        ("Sent", "Sent"),
        ("Trash", "Trash"),
    ):
        account.create(name, special_use="\\" + use)


def _icloud(account: Account) -> None:
    for name, use in (("Archive", "Archive"), ("Deleted Messages", "Trash"), ("Drafts", "Drafts"), ("Junk", "Junk")):
        account.create(name, special_use="\\" + use)
    account.create("Notes")
    account.create("Sent Messages", special_use="\\Sent")


def _domino(account: Account) -> None:
    for name in ("Drafts", "Sent", "Trash", "JunkMail"):
        account.create(name)


def _nothing(account: Account) -> None:
    """INBOX only."""


_GMAIL = Faults(
    capabilities=(
        *("IMAP4rev1", "UNSELECT", "IDLE", "NAMESPACE", "QUOTA", "ID", "XLIST", "CHILDREN", "X-GM-EXT-1", "XYZZY"),
        *("SASL-IR", "AUTH=XOAUTH2", "AUTH=PLAIN", "AUTH=PLAIN-CLIENTTOKEN", "AUTH=OAUTHBEARER"),
    ),
    capabilities_after_login=(
        *("IMAP4rev1", "UNSELECT", "IDLE", "NAMESPACE", "QUOTA", "ID", "XLIST", "CHILDREN", "X-GM-EXT-1", "UIDPLUS"),
        *("COMPRESS=DEFLATE", "ENABLE", "MOVE", "CONDSTORE", "ESEARCH", "UTF8=ACCEPT", "LIST-EXTENDED", "LIST-STATUS"),
        *("LITERAL-", "SPECIAL-USE", "APPENDLIMIT=35651584"),
    ),
    tells_capabilities=False,
    greeting="Gimap ready for requests from 127.0.0.1 faulty",
    server_id=(("name", "GImap"), ("vendor", "Google, Inc."), ("support-url", "https://support.google.com/mail")),
    labels=True,
    connections_max=15,
    append_max=35_651_584,
)
_O365 = Faults(
    capabilities=(
        *("IMAP4", "IMAP4rev1", "AUTH=PLAIN", "AUTH=XOAUTH2", "SASL-IR", "UIDPLUS", "MOVE", "ID", "UNSELECT"),
        *("CHILDREN", "IDLE", "NAMESPACE", "LITERAL+"),
    ),
    greeting="The Microsoft Exchange IMAP4 service is ready. [RgBhAHUAbAB0AHkA]",
    server_id=(("name", "Microsoft.Exchange.Imap4.Imap4Server"), ("version", "15.20")),
    not_connected=1,
    busy=(
        Busy(
            rb"\b(FETCH|APPEND|STORE|COPY|MOVE)\b",
            every=7,
            reply=b"BAD Request is throttled. Suggested Backoff Time: 123 milliseconds",
        ),
    ),
    lost_flags_on_append=frozenset(("\\Flagged",)),
    keywords=False,
    uidvalidity_lasts=3,
    line_max=10_239,
    line_max_text="BAD Command Error. 11",
    connections_max=20,
    append_max=45_000_000,
    replaces=rb"(?m)^X-Faulty: unreadable\r$",
)

KINDS: dict[str, Kind] = {
    "plain": Kind(Faults(), _plain),
    "gmail": Kind(_GMAIL, _gmail),
    "o365": Kind(_O365, _exchange),
    "exchange": Kind(
        Faults(
            capabilities=("IMAP4", "IMAP4rev1", "AUTH=PLAIN", "UIDPLUS", "CHILDREN", "IDLE", "NAMESPACE", "LITERAL+"),
            greeting="The Microsoft Exchange IMAP4 service is ready.",
            pipeline_max=8,
            size_error=57,
            keywords=False,
            append_max=10_000_000,
            replaces=rb"(?m)^X-Faulty: unreadable\r$",
        ),
        _exchange,
    ),
    "yahoo": Kind(
        Faults(
            capabilities=(
                *("IMAP4rev1", "SASL-IR", "AUTH=PLAIN", "AUTH=XOAUTH2", "AUTH=OAUTHBEARER", "ID", "MOVE", "NAMESPACE"),
                *("XYMHIGHESTMODSEQ", "UIDPLUS", "LITERAL+", "CHILDREN", "UNSELECT", "IDLE", "SPECIAL-USE"),
            ),
            greeting="IMAP4rev1 imapgate-1.9.0 ready",
            folder_cap=10_000,
            search_drops=50,
            busy=(Busy(every=11, reply=b"NO [SERVERBUG] Server error - Please try again later"),),
            connections_max=5,
        ),
        _yahoo,
    ),
    "icloud": Kind(
        Faults(
            capabilities=("IMAP4", "IMAP4rev1", "SASL-IR", "AUTH=ATOKEN", "AUTH=PLAIN"),
            capabilities_after_login=_without("COMPRESS=DEFLATE", "LIST-STATUS", "SEARCHRES"),
            tells_capabilities=False,
            greeting="iSCREAM ready",
            rfc822="missing",
            peek_sets_seen=True,
        ),
        _icloud,
    ),
    "domino": Kind(
        Faults(
            capabilities=("IMAP4REV1", "AUTH=PLAIN", "LITERAL+", "NAMESPACE", "QUOTA", "UIDPLUS"),
            greeting="Domino IMAP4 Server Release 8.5.3 ready",
            separator="\\",
            size_error=-131,
            unquoted_names=True,
            junk_lines=(b"* FLAGS (\\Seen) junk", b"* NO ", b"* X-NOTES warning (0x103A"),
            bad_dates=True,
            name_seven_bit=True,
        ),
        _domino,
    ),
    "pop3": Kind(
        Faults(
            pop=PopFaults(uidl="repeated", capa=False, pipelining=False, top=False, size_error=-7, list_sizes=False),
        ),
        _nothing,
        "pop3",
    ),
}
