"""Gmail's labels in many languages."""

import pytest

from mailkeep.export.gmail import place, split_labels

SEEN, FLAGGED, DRAFT = "\\Seen", "\\Flagged", "\\Draft"


@pytest.mark.parametrize(
    ("value", "mailboxes", "flags"),
    [
        ("Inbox,Unread", ("INBOX",), set()),
        ("Inbox,Opened,Important,Category Personal", ("INBOX",), {SEEN, "$Important"}),
        ("Archived,Opened", ("Archive",), {SEEN}),
        ("Archived,Work/Plans,Starred", ("Work/Plans",), {SEEN, FLAGGED}),
        ("Unread,Category Promotions", ("Archive",), set()),
        ("Drafts", ("Drafts",), {SEEN, DRAFT}),
        ("Spam,Unread", ("Junk",), set()),
        ("Trash", ("Trash",), {SEEN}),
        ("Sent,Inbox", ("Sent", "INBOX"), {SEEN}),
        ("Inbox,IMAP_$Forwarded,IMAP_NotJunk", ("INBOX",), {SEEN, "$Forwarded", "NotJunk"}),
        ("Inbox,inbox", ("INBOX",), {SEEN}),
        ("", ("Archive",), {SEEN}),
        ("=?UTF-8?Q?Posteingang,Wichtig,Ungelesen,Kategorie:_=22Neuigkeiten=22?=", ("INBOX",), {"$Important"}),
        (
            "=?UTF-8?Q?Messages_archiv=C3=A9s,Ouvert,Cat=C3=A9gorie=C2=A0:_E-mails_?= =?UTF-8?Q?personnels?=",
            ("Archive",),
            {SEEN},
        ),
        ("=?UTF-8?Q?Archivov=C3=A1no,Nep=C5=99e=C4=8Dten=C3=A9,Facebook?=", ("Facebook",), set()),
        ("=?UTF-8?Q?Archiv=C3=A9s,Envoy=C3=A9?=", ("Sent",), {SEEN}),
        ("=?UTF-8?B?5pS25Lu2566xLOacquivuw==?=", ("INBOX",), set()),
        ("Category of things", ("Category of things",), {SEEN}),
        ('Inbox,"Culture, associations"', ("INBOX", "Culture, associations"), {SEEN}),
    ],
)
def test_labels(value: str, mailboxes: tuple[str, ...], flags: set[str]) -> None:
    placed = place(value.encode())
    assert placed.mailboxes == mailboxes
    assert placed.flags == flags


@pytest.mark.parametrize("value", [b"", b",,,", b'"', b'"a', b"\x00", b"\xff\xfe", b"=?UTF-8?Q?=ZZ?=", b'a"b,"c"d'])
def test_nonsense_does_not_fail(value: bytes) -> None:
    assert all(split_labels(value)) and place(value).mailboxes
