"""Mail to test with: ugly messages of our own making, real ones when a corpus lies beside the checkout, and bulk.

Everything is CRLF bytes. The real corpus (`$MAILKEEP_CORPUS`, else `../shared/corpus`) is other people's test data and
is not copied into this repository: a clone without it tests with `ugly()` alone, and the run says so.
"""

import base64
import functools
import os
import quopri
import random
import re
from pathlib import Path

SHARED = Path(os.environ.get("MAILKEEP_CORPUS") or Path(__file__).resolve().parents[2] / "shared" / "corpus")


def crlf(data: bytes) -> bytes:
    """Line ends as a sending client makes them: a lone LF becomes CRLF, nothing else changes."""
    return re.sub(rb"(?<!\r)\n", b"\r\n", data)


@functools.cache
def shared_corpus() -> tuple[tuple[str, bytes], ...] | None:
    """The real messages, by file name; None when they are not on this machine."""
    if not SHARED.is_dir():
        return None
    return tuple((path.name, crlf(path.read_bytes())) for path in sorted(SHARED.iterdir()) if path.is_file())


def corpus() -> list[tuple[str, bytes]]:
    """Every ugly message that there is here: (name, bytes)."""
    return [*ugly(), *(shared_corpus() or ())]


def numbered(number: int, *, size: int = 0, subject: str = "") -> bytes:
    """A small plain message whose Message-ID and body say which one it is."""
    body = f"This is message {number}.\r\n" + ("0123456789abcdef" * 4 + "\r\n") * (size // 66)
    return (
        f"From: Ann Other <ann@example.org>\r\nTo: Bob <bob@example.org>\r\n"
        f"Subject: {subject or f'Message {number}'}\r\nDate: Tue, 20 Jan 2026 10:{number // 60 % 60:02}:{number % 60:02} +0000\r\n"
        f"Message-ID: <{number}@example.org>\r\n\r\n{body}\r\n"
    ).encode()


WORDS = [
    "mail",
    "keep",
    "door",
    "store",
    "letter",
    "bundle",
    "parcel",
    "stamp",
    "folder",
    "thread",
    "answer",
    "question",
    "meeting",
    "report",
    "budget",
    "invoice",
    "garden",
    "window",
    "river",
    "station",
    "morning",
    "evening",
    "coffee",
    "bread",
    "paper",
    "pencil",
    "schedule",
    "holiday",
    "weather",
    "mountain",
    "island",
    "harbour",
]
NAMES = ("Ann Other", "Bob Builder", "Chen Wei", "Dalia Haddad", "Émile Zola", "Fatima Zahra", "Göran Svensson", "Hana")


def bulk(count: int, seed: int = 1) -> list[bytes]:
    """Ordinary mail, as lists and people send it: most of it small text, some HTML alternatives, some attachments."""
    rng = random.Random(seed)
    return [_ordinary(number, rng) for number in range(count)]


def _ordinary(number: int, rng: random.Random) -> bytes:
    sender, receiver = rng.choice(NAMES), rng.choice(NAMES)
    subject = " ".join(rng.choices(WORDS, k=rng.randint(2, 6)))
    head = [
        f"Return-Path: <u{rng.randrange(500)}@example.org>",
        f"Received: from mx{rng.randrange(9)}.example.net (mx.example.net [192.0.2.{rng.randrange(255)}])\r\n"
        f"\tby mail.example.org with ESMTPS id {rng.getrandbits(48):012x}\r\n\tfor <user@example.org>; {_date(number)}",
        f"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.net; s=s1;\r\n\t"
        f"h=from:to:subject:date:message-id;\r\n\tbh={base64.b64encode(rng.randbytes(32)).decode()};\r\n\t"
        f"b={base64.b64encode(rng.randbytes(48)).decode()}\r\n\t {base64.b64encode(rng.randbytes(48)).decode()}",
        f"From: {_name(sender)} <{sender.split()[0].lower().encode('ascii', 'ignore').decode()}@example.net>",
        f"To: {_name(receiver)} <user@example.org>",
        f"Subject: {'Re: ' if rng.random() < 0.4 else ''}{subject}",
        f"Date: {_date(number)}",
        f"Message-ID: <{number}.{rng.getrandbits(40):x}@example.net>",
        "MIME-Version: 1.0",
    ]
    if number and rng.random() < 0.4:
        head.append(f"In-Reply-To: <{rng.randrange(number)}@example.net>")
    text = "\r\n".join(" ".join(rng.choices(WORDS, k=11)) for _ in range(rng.randint(4, 30))) + "\r\n"
    kind = rng.random()
    if kind < 0.5:
        head.append('Content-Type: text/plain; charset="utf-8"')
        return _join(head, text)
    boundary = f"=_{rng.getrandbits(64):016x}"
    page = f"<html><body><p>{text}</p></body></html>\r\n"
    parts = [("text/plain; charset=utf-8", "7bit", text), ("text/html; charset=utf-8", "7bit", page)]
    family = "alternative"
    if kind > 0.85:
        family = "mixed"
        data = base64.encodebytes(rng.randbytes(rng.randint(1000, 9000))).decode().replace("\n", "\r\n")
        parts[1:] = [(f'application/pdf; name="file{number}.pdf"', "base64", data)]
    head.append(f'Content-Type: multipart/{family}; boundary="{boundary}"')
    body = "".join(
        f"--{boundary}\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n{content}\r\n"
        for kind, encoding, content in parts
    )
    return _join(head, f"{body}--{boundary}--\r\n")


def _date(number: int) -> str:
    return f"{1 + number % 28} Jan 2026 {number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02} +0000"


def _name(name: str) -> str:
    return name if name.isascii() else f"=?utf-8?B?{base64.b64encode(name.encode()).decode()}?="


def _join(head: list[str], body: str) -> bytes:
    return ("\r\n".join(head) + "\r\n\r\n" + body).encode()


HEAD = b"From: a@example.org\r\nTo: b@example.org\r\nSubject: ugly\r\nDate: Tue, 20 Jan 2026 10:00:00 +0000\r\n"
MULTI = HEAD + b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b"\r\n'


def _mime(kind: bytes, body: bytes, encoding: bytes = b"7bit") -> bytes:
    return HEAD + b"Content-Type: " + kind + b"\r\nContent-Transfer-Encoding: " + encoding + b"\r\n\r\n" + body


def _nested(depth: int) -> bytes:
    inner = b"Content-Type: text/plain\r\n\r\nthe innermost\r\n"
    for level in range(depth):
        mark = b"level%d" % level
        inner = (
            b"Content-Type: multipart/mixed; boundary="
            + mark
            + b"\r\n\r\n--"
            + mark
            + b"\r\n"
            + inner
            + b"\r\n--"
            + mark
            + b"--\r\n"
        )
    return HEAD + b"MIME-Version: 1.0\r\n" + inner


def _forwarded(depth: int) -> bytes:
    message = HEAD + b"\r\nthe first\r\n"
    for _ in range(depth):
        message = HEAD + b"Content-Type: message/rfc822\r\n\r\n" + message
    return message


def _headers() -> dict[str, bytes]:
    body = b"\r\nbody\r\n"
    return {
        "headers-only": HEAD,
        "headers-and-blank": HEAD + b"\r\n",
        "no-headers": b"\r\nonly a body\r\n",
        "no-final-newline": HEAD + b"\r\nno newline at the end",
        "no-blank-line": b"Subject: x\r\nthis line has no colon and is the body\r\nsecond\r\n",
        "one-byte": b"x",
        "only-crlf": b"\r\n",
        "raw-utf8-subject": "Subject: grüße, 你好, 🦊\r\nFrom: Jörg <j@example.org>\r\n".encode() + body,
        "raw-latin1-subject": b"Subject: gr\xfc\xdfe\r\nFrom: J\xf6rg <j@example.org>\r\n" + body,
        "encoded-word-broken": b"Subject: =?utf-8?B?w?= =?x?Q?a=?= =?utf-8?Q?=ZZ?= =?\r\n" + body,
        "encoded-word-long": b"Subject: " + b" ".join([b"=?utf-8?Q?=C3=BC?="] * 2000) + b"\r\n" + body,
        "folded-everywhere": b"Subject:\r\n a\r\n\tb\r\n  c\r\nFrom:\r\n Ann\r\n <ann@example.org>\r\n" + body,
        "whitespace-line-in-header": b"Subject: a\r\n \r\n b\r\nTo: x@example.org\r\n" + body,
        "empty-values": b"Subject:\r\nFrom:\r\nTo:\r\nDate:\r\nMessage-ID:\r\n" + body,
        "duplicates": HEAD + b"Subject: second\r\nFrom: other@example.org\r\nTo: c@example.org\r\n" + body,
        "space-before-colon": b"Subject : spaced\r\nFrom : a@example.org\r\n" + body,
        "header-without-name": b": nothing\r\nSubject: x\r\n" + body,
        "mbox-from-line": b"From ann@example.org Tue Jan 20 10:00:00 2026\r\n" + HEAD + body,
        "quotes-and-backslashes": b'Subject: "a\\b" \\" %{}()*\r\nFrom: "A \\"B\\" \\\\ C" <a@example.org>\r\n' + body,
        "groups": b"From: a@example.org\r\nTo: undisclosed-recipients:;\r\nCc: Team: a@x.org, B <b@x.org>;, c@x.org\r\n"
        + body,
        "address-routes": b"From: <@a.org,@b.org:c@d.org>\r\nTo: a@b@c, <>, @x, x@, (only comment)\r\n" + body,
        "address-comments": b"From: ann@example.org (Ann (nested) Other)\r\nTo: (c) b (d) @ (e) x.org (f)\r\n" + body,
        "address-literal": b"From: a@[192.0.2.1]\r\nTo: b@[IPv6:2001:db8::1]\r\n" + body,
        "many-addresses": b"From: a@x.org\r\nTo: "
        + b",\r\n ".join(b"u%d@x.org" % n for n in range(3000))
        + b"\r\n"
        + body,
        "long-line": b"Subject: " + b"x" * 20000 + b"\r\n" + body,
        "many-fields": b"".join(b"X-%d: y\r\n" % n for n in range(3000)) + body,
        "wild-dates": b"Date: yesterday\r\nFrom: a@x.org\r\n" + body,
        "date-out-of-range": b"Date: Tue, 99 Foo 99999 99:99:99 +9999\r\nFrom: a@x.org\r\n" + body,
    }


def _bodies() -> dict[str, bytes]:
    return {
        "dots": HEAD + b"\r\n.\r\n..\r\n.x\r\n...\r\n",
        "from-lines": HEAD + b"\r\nFrom the start\r\n>From quoted\r\n",
        "long-body-line": HEAD + b"\r\n" + b"y" * 100_000 + b"\r\n",
        "eight-bit": _mime(b"text/plain; charset=utf-8", "naïve 你好 مرحبا 🦊\r\n".encode(), b"8bit"),
        "unknown-charset": _mime(b"text/plain; charset=x-klingon", b"\xff\xfe\x80\r\n", b"8bit"),
        "wrong-charset": _mime(b"text/plain; charset=us-ascii", b"\xe4\xf6\xfc\r\n", b"8bit"),
        "utf16-base64": _mime(b"text/plain; charset=utf-16", base64.encodebytes("häl".encode("utf-16")), b"base64"),
        "quoted-printable": _mime(
            b"text/plain", quopri.encodestring("ä = €\n".encode()) + b"=\r\n=3\r\n=zz", b"quoted-printable"
        ),
        "base64-broken": _mime(b"application/octet-stream", b"!!!not base64===\r\nYQ\r\n=", b"base64"),
        "unknown-encoding": _mime(b"text/plain", b"whatever\r\n", b"x-unheard-of"),
        "html": _mime(b"text/html", b"<p>a<br>b<script>x</script>&amp;<style>y</style></p><p\r\n"),
        "type-garbage": _mime(b";;;=;;", b"body\r\n"),
        "type-one-word": _mime(b"text", b"body\r\n"),
        "type-many-parameters": _mime(b"text/plain" + b"; p=v" * 1500, b"body\r\n"),
        "type-rfc2231": _mime(
            b"application/pdf; name*0*=utf-8''a%C3%BC; name*1=b.pdf; name=\"=?utf-8?Q?=C3=BC?=\"", b"x"
        ),
        "disposition": HEAD + b'Content-Type: image/png\r\nContent-Disposition: attachment; filename="a;b\\"c.png"\r\n'
        b"Content-ID: <cid@x>\r\nContent-Language: en, de\r\nContent-Location: http://example.org/\r\n"
        b"Content-MD5: Q2hlY2sgSW50ZWdyaXR5IQ==\r\nContent-Description: =?utf-8?Q?=C3=BC?=\r\n\r\nx\r\n",
        "calendar": _mime(b"text/calendar; method=REQUEST", b"BEGIN:VCALENDAR\r\nMETHOD:REQUEST\r\nEND:VCALENDAR\r\n"),
    }


def _multiparts() -> dict[str, bytes]:
    leaf = b"--b\r\nContent-Type: text/plain\r\n\r\npart\r\n"
    return {
        "multipart-unclosed": MULTI + b"\r\n--b\r\n\r\npart without an end\r\n",
        "multipart-empty": MULTI + b"\r\n--b--\r\n",
        "multipart-no-parts": MULTI + b"\r\nno boundary anywhere\r\n",
        "multipart-no-boundary": HEAD + b"Content-Type: multipart/mixed\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n",
        "multipart-preamble": MULTI + b"\r\npreamble\r\n" + leaf + b"--b--\r\nepilogue\r\n--b\r\nnot a part\r\n",
        "multipart-trailing-space": MULTI + b"\r\n--b  \t\r\n\r\nx\r\n--b-- \r\n",
        "multipart-boundary-prefix": MULTI + b"\r\n--b\r\n\r\nx\r\n--bc\r\nstill x\r\n--b--\r\n",
        "multipart-part-no-blank": MULTI + b"\r\n--b\r\nContent-Type: text/html\r\n--b--\r\n",
        "multipart-part-no-headers": MULTI + b"\r\n--b\r\nno headers and no blank line\r\n--b--\r\n",
        "multipart-same-boundary": MULTI
        + b"\r\n--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
        + leaf
        + b"--b--\r\n--b--\r\n",
        "multipart-outer-ends-inner": MULTI
        + b"\r\n--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\nx\r\n--b\r\n\r\ny\r\n--b--\r\n",
        "multipart-digest": HEAD
        + b"Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nSubject: in\r\n\r\nx\r\n--b--\r\n",
        "multipart-many": MULTI + b"\r\n" + leaf * 3000 + b"--b--\r\n",
        "multipart-no-final-newline": MULTI + b"\r\n--b\r\n\r\nx\r\n--b--",
        "multipart-long-boundary": HEAD
        + b"Content-Type: multipart/mixed; boundary="
        + b"z" * 200
        + b"\r\n\r\n--"
        + b"z" * 200
        + b"\r\n\r\nx\r\n",
        "nested-20": _nested(20),
        "nested-90": _nested(90),
        "nested-400": _nested(400),
        "forwarded-10": _forwarded(10),
        "forwarded-base64": _mime(
            b"message/rfc822", base64.encodebytes(HEAD + b"\r\nx\r\n").replace(b"\n", b"\r\n"), b"base64"
        ),
        "forwarded-truncated": HEAD + b"Content-Type: message/rfc822\r\n\r\nSubject: in",
        "delivery-status": HEAD
        + b"Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n--b\r\n\r\nfailed\r\n"
        b"--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; x\r\n\r\nAction: failed\r\n--b--\r\n",
    }


@functools.cache
def ugly() -> tuple[tuple[str, bytes], ...]:
    """Our own ugly mail: what real mail does wrong, one fault a message."""
    return tuple((name, crlf(data)) for table in (_headers(), _bodies(), _multiparts()) for name, data in table.items())
