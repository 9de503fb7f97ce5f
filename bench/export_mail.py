"""The mail that `bench.export` exports: three lots, made from numbers alone, so that any message can be made again.

plain    replies of 3 to 10 KB: what is most of real mail
mixed    half of them replies, the rest HTML with a picture in place, and attachments of 10 to 300 KB
heavy    an attachment of some 2 MB each, for an output of many gigabytes
"""

import base64
import contextlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from mailkeep.export.item import Item
from tests.messages import NAMES, WORDS

BEGUN = 1_600_000_000
APART_S = 1_800  # between two messages
FOLDERS = ("INBOX", "Work/Clients", "Work/Plans", "Private", "Lists/announce")


def subject(number: int) -> str:
    """Of one message; unique, so that a reader of the output can tell which one it has."""
    rng = random.Random(number)
    return f"Re: {' '.join(rng.choices(WORDS, k=4))} {number}"


def text(number: int, size: int) -> str:
    """A reply with the letter that it answers, in CRLF lines."""
    rng = random.Random(f"text {number}")
    lines = [f"Dear {rng.choice(NAMES)},", ""]
    written = 0
    while written < size:
        line = " ".join(rng.choices(WORDS, k=rng.randint(8, 12)))
        lines.append(f"{'> ' * (written > size // 3)}{line}")
        written += len(lines[-1]) + 2
        if rng.random() < 0.1:
            lines.append("")
    return "\r\n".join([*lines, "", "Regards, Ann", ""])


def _head(number: int) -> str:
    rng = random.Random(f"head {number}")
    sender = rng.choice(("ann", "bob", "chen", "dalia", "hana"))
    return (
        f"Return-Path: <{sender}@example.net>\r\n"
        f"Received: from mx{number % 9}.example.net (mx.example.net [192.0.2.{number % 255}])\r\n"
        f"\tby mail.example.org with ESMTPS id {rng.getrandbits(48):012x}; Tue, 20 Jan 2026 10:00:00 +0000\r\n"
        f"From: {sender.title()} Other <{sender}@example.net>\r\nTo: Bob Builder <bob@example.org>\r\n"
        f"Cc: Göran <goran@example.org>\r\nSubject: {subject(number)}\r\n".replace("Göran", "=?utf-8?Q?G=C3=B6ran?=")
        + f"Date: Tue, 20 Jan 2026 {number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02} +0100\r\n"
        f"Message-ID: <{number}.bench@example.net>\r\nIn-Reply-To: <{number // 2}.bench@example.net>\r\n"
        f"References: <{number // 4}.bench@example.net> <{number // 2}.bench@example.net>\r\nMIME-Version: 1.0\r\n"
    )


def plain(number: int) -> bytes:
    size = random.Random(f"size {number}").randint(2_400, 9_400)
    return f"{_head(number)}Content-Type: text/plain; charset=utf-8\r\n\r\n{text(number, size)}".encode()


def brief(number: int) -> bytes:
    """A reply that fits on a page."""
    size = random.Random(f"size {number}").randint(400, 1_800)
    return f"{_head(number)}Content-Type: text/plain; charset=utf-8\r\n\r\n{text(number, size)}".encode()


def mixed(number: int) -> bytes:
    rng = random.Random(f"mixed {number}")
    kind = rng.random()
    if kind < 0.5:
        return plain(number)
    words = text(number, 3_000)
    page = "".join(f"<p>{line}</p>\r\n" for line in words.split("\r\n"))
    picture = '<p><img src="cid:logo@example.net" alt=""></p>' if kind < 0.75 else ""
    html = (
        f"<html><head><style>p {{ margin: 3px; color: #123456 }}</style></head><body>{picture}{page}</body></html>\r\n"
    )
    parts = [_part("text/html; charset=utf-8", html.encode())]
    if picture:
        parts.append(
            _part(
                "image/png",
                PICTURE,
                'Content-ID: <logo@example.net>\r\nContent-Disposition: inline; filename="logo.png"\r\n',
            )
        )
        return _multipart(number, "related", parts)
    data = attachment(number)
    parts.append(
        _part("application/octet-stream", data, f'Content-Disposition: attachment; filename="file {number}.bin"\r\n')
    )
    return _multipart(number, "mixed", parts)


def heavy(number: int) -> bytes:
    data = attachment(number, 2 << 20)
    part = _part("application/octet-stream", data, f'Content-Disposition: attachment; filename="file {number}.bin"\r\n')
    return _multipart(number, "mixed", [_part("text/plain; charset=utf-8", text(number, 500).encode()), part])


def attachment(number: int, size: int = 0) -> bytes:
    rng = random.Random(f"data {number}")
    return rng.randbytes(size or int(10_000 * 30 ** rng.random()))


def _part(media_type: str, data: bytes, extra: str = "") -> bytes:
    body = base64.encodebytes(data).replace(b"\n", b"\r\n")
    return f"Content-Type: {media_type}\r\n{extra}Content-Transfer-Encoding: base64\r\n\r\n".encode() + body


def _multipart(number: int, kind: str, parts: list[bytes]) -> bytes:
    boundary = f"=_{number:08x}"
    body = b"".join(b"--%b\r\n%b\r\n" % (boundary.encode(), part) for part in parts)
    head = f'{_head(number)}Content-Type: multipart/{kind}; boundary="{boundary}"\r\n\r\n'
    return head.encode() + body + f"--{boundary}--\r\n".encode()


def _picture() -> bytes:
    from mailkeep.export.demo import picture

    return picture((40, 90, 160), 320, 120)


PICTURE = _picture()
LOTS: dict[str, Callable[[int], bytes]] = {"plain": plain, "brief": brief, "mixed": mixed, "heavy": heavy}
_FLAGS = (
    frozenset[str](),
    frozenset({"\\Seen"}),
    frozenset({"\\Seen", "\\Answered"}),
    frozenset({"\\Flagged", "later"}),
)


def folder(number: int) -> str:
    """Runs of a thousand stay together, as in real folders; most are in INBOX."""
    return FOLDERS[max(0, number // 1000 % 8 - 3)]


def fill(data: Path, lot: str, count: int) -> int:
    """Make the account `lot` in a store with so many messages; returns their bytes."""
    from mailkeep.export.importer import Importer
    from mailkeep.store.store import Store

    def items() -> Iterator[Item]:
        for number in range(count):
            message = LOTS[lot](number)
            yield Item(
                f"#{number}",
                len(message),
                iter((message,)),
                (folder(number),),
                _FLAGS[number % 4],
                BEGUN + number * APART_S,
            )

    with contextlib.closing(Store.open(data)) as store:
        store.directory.add(lot)
        importer = Importer(store, store.account(lot))
        for _ in importer.items(items()):
            pass
        if importer.summary.added != count:
            raise SystemExit(f"{lot}: {importer.summary.added} of {count} messages were taken")
        return importer.summary.bytes
