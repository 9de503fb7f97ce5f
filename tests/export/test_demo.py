"""The demo's mail: the same every time, sound, and of every kind that it promises."""

import email
import email.policy
from collections import Counter
from email.message import EmailMessage

from mailkeep.export import demo
from mailkeep.mail.mime import scan
from mailkeep.mail.structure import render


def mail() -> list[bytes]:
    return [b"".join(item.chunks) for item in demo.items()]


def test_it_is_the_same_every_time() -> None:
    assert mail() == mail()
    assert 250 < len(mail()) < 400 and len(set(mail())) == len(mail())


def test_every_message_is_sound() -> None:
    for data in mail():
        assert b"\n" not in data.replace(b"\r\n", b"") and max(map(len, data.split(b"\r\n"))) < 998
        parsed = email.message_from_bytes(data, policy=email.policy.default)
        assert not [part for part in parsed.walk() if part.defects], data[:500]
        assert parsed["Date"].datetime and parsed["From"].addresses
        assert scan(data).end == len(data) and render(data).size == len(data)


def test_it_has_what_clients_should_be_tried_with() -> None:
    parsed = [email.message_from_bytes(data, policy=email.policy.default) for data in mail()]
    kinds = Counter(part.get_content_type() for message in parsed for part in message.walk())
    for kind in (
        "multipart/related", "multipart/alternative", "multipart/mixed", "multipart/digest", "multipart/report",
        "message/rfc822", "message/delivery-status", "text/calendar", "text/html", "image/png", "application/pdf",
    ):  # fmt: skip
        assert kinds[kind], kind
    texts = "".join(text_of(message) for message in parsed)
    assert all(sample in texts for sample in ("الجمعة", "爬山", "写真", "🏠", "Zürich"))
    names = {part.get_filename() for message in parsed for part in message.walk()}
    assert {"خريطة.png", "Einladung für Gäste.pdf", "budget.csv", "invite.ics"} <= names
    depth = Counter(str(message["References"]).count("<") for message in parsed)
    assert max(depth) >= 10, "no long thread"


def text_of(message: EmailMessage) -> str:
    return "".join(part.get_content() for part in message.walk() if part.get_content_type() == "text/plain")


def test_flags_and_mailboxes_are_mixed() -> None:
    items = list(demo.items())
    flags = Counter(flag for item in items for flag in item.flags)
    assert {"\\Seen", "\\Flagged", "\\Answered", "\\Draft", "$Forwarded"} <= flags.keys()
    boxes = {item.mailboxes[0] for item in items}
    assert {"", "Sent", "Drafts", "Junk", "Trash", "Archive"} <= boxes and any(not box.isascii() for box in boxes)
    assert [item.internaldate for item in items] == sorted(item.internaldate or 0 for item in items)
    assert any("\\Seen" not in item.flags for item in items)
