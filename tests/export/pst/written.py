"""PSTs to test with: written from messages as the exporter would, and what their readers should find in them."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from mailkeep.export import mapi
from mailkeep.export.mapi import Item
from mailkeep.export.pst import make
from mailkeep.export.pst.writer import PstWriter
from mailkeep.export.to_mapi import item_of
from mailkeep.export.writer import Folder, Message, Options
from mailkeep.mail.letter import letter_of
from tests.export.pst.strangers import Found, digest, seconds

INBOX = Folder("INBOX", ("INBOX",))
SENT = Folder("Sent", ("Sent",), frozenset({"\\Sent"}))
TRASH = Folder("Trash", ("Trash",), frozenset({"\\Trash"}))
DEEP = Folder("Work/Å/日本", ("Work", "Å", "日本"))
WHEN = 1_700_000_000


def messages(folder: Folder, mails: Iterable[bytes]) -> list[Message]:
    """Every third is unread."""
    return [
        Message(number, folder, number, frozenset({"\\Seen"} if number % 3 else ()), WHEN + number, data)
        for number, data in enumerate(mails, 1)
    ]


def begin(place: Path, folders: Sequence[Folder], state: bytes | None = None) -> PstWriter:
    return make(place, Options(title="Test", folders=tuple(folders)), state)


def write(place: Path, mail: dict[Folder, list[Message]]) -> None:
    """A whole PST, in batches of 64."""
    writer = begin(place, list(mail))
    for folder, found in mail.items():
        writer.folder(folder)
        for at in range(0, len(found), 64):
            writer.write(found[at : at + 64])
    writer.checkpoint()
    writer.finish()


def expected(message: Message) -> Found:
    """What a reader should find of a message."""
    found = _found(item_of(message, letter_of(message.data)))
    assert found.delivered == message.internaldate
    assert found.read == ("\\Seen" in message.flags)
    return found


def _found(item: Item) -> Found:
    get = item.properties.get
    found = Found(
        subject=str(get(mapi.SUBJECT, "")),
        sender=str(get(mapi.REPRESENTING_NAME, "")),
        sender_address=str(get(mapi.REPRESENTING_ADDRESS, "")),
        delivered=seconds(int(str(get(mapi.DELIVERY_TIME)))),
        submitted=seconds(int(str(get(mapi.CLIENT_SUBMIT_TIME)))),
        read=bool(int(str(get(mapi.MESSAGE_FLAGS))) & 1),
        text=str(get(mapi.BODY, "")),
        html=bytes(get(mapi.HTML, b"")),  # type: ignore[arg-type]
    )
    for one in item.recipients:
        found.recipients.append(
            (int(str(one[mapi.RECIPIENT_TYPE])), str(one[mapi.DISPLAY_NAME]), str(one.get(mapi.EMAIL_ADDRESS, "")))
        )
    for attached in item.attachments:
        name = str(attached.properties.get(mapi.ATTACH_LONG_NAME) or attached.properties.get(mapi.ATTACH_NAME) or "")
        inside = digest(attached.data or b"") if attached.item is None else _found(attached.item)
        found.attachments.append((name, inside))
    return found
