"""mbox: five dialects, each told from the others by the file alone."""

import mmap
import random
from pathlib import Path

import pytest

from mailkeep.export import mbox
from mailkeep.export.item import Bad, Item, Skipped

FROM = "From ann@example.org Tue Jan 20 10:00:00 2026\n"
SIZE_MAX = 1 << 20


def messages(data: bytes, *, size_max: int = SIZE_MAX) -> list[bytes]:
    return [b"".join(item.chunks) for item in items(data, size_max=size_max)]


def items(data: bytes, *, size_max: int = SIZE_MAX) -> list[Item]:
    """The items of a file, each with chunks that can be read later."""
    found = []
    for item in mbox.read(data, "box", Skipped(), size_max=size_max):
        assert isinstance(item, Item), item
        found.append(
            Item(item.source, item.size, iter(list(item.chunks)), item.mailboxes, item.flags, item.internaldate)
        )
    return found


def crlf(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()


def test_two_plain_messages() -> None:
    data = f"{FROM}Subject: one\n\nbody one\n\n{FROM}Subject: two\n\nbody two\n\n".encode()
    assert messages(data) == [crlf("Subject: one\n\nbody one\n"), crlf("Subject: two\n\nbody two\n")]


def test_the_from_lines_date_is_the_internal_date_in_utc_or_in_its_own_zone() -> None:
    zones = {
        "From a@b Tue Jan 20 10:00:00 2026": 1768903200,
        "From a@b Tue Jan 20 10:00:00 +0100 2026": 1768899600,
        "From a@b Tue Jan 20 10:00:00 2026 +0100": 1768899600,
        "From a@b Tue Jan 20 10:00 2026": 1768903200,
        "From a@b  Tue Jan  20 10:00:00 CET 2026 remote from x": 1768903200,
    }
    for line, when in zones.items():
        (item,) = items(f"{line}\nSubject: x\n\nbody\n".encode())
        assert item.internaldate == when, line


def test_dates_that_say_nothing_are_looked_for_in_the_header() -> None:
    for line in (
        "From 1234567890123456789012345678901234567890 Mon Sep 17 00:00:00 2001",
        "From x@z Thu Jan  1 00:00:00 1970",
    ):
        header = "Received: by mx; Tue, 20 Jan 2026 10:00:00 +0000\nDate: Mon, 19 Jan 2026 10:00:00 +0000\n"
        (item,) = items(f"{line}\n{header}\nbody\n".encode())
        assert item.internaldate == 1768903200
    (item,) = items(b"From - \nDate: Mon, 19 Jan 2026 10:00:00 +0000\n\nbody\n")
    assert item.internaldate == 1768816800


def test_one_level_of_quoting_is_taken_away() -> None:
    data = f"{FROM}Subject: q\n\n>From here\n>>From there\n>>>From afar\n> From is text\n>Fromage\n".encode()
    assert messages(data) == [crlf("Subject: q\n\nFrom here\n>From there\n>>From afar\n> From is text\n>Fromage\n")]


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_text_that_begins_with_from_is_not_a_message(line_end: str) -> None:
    text = (
        f"{FROM}Subject: x\n\nHello\n\nFrom what I hear, it rains.\n\nFrom: not a header\nFrom bob@x.org\n\n"
        "From carol Tue Jan 20 10:00:00 2026\nno header follows\n"
    )
    found = messages(text.replace("\n", line_end).encode())
    assert len(found) == 1
    assert found[0] == text.partition("\n")[2].replace("\n", "\r\n").encode()


def test_mozilla_from_lines_without_a_date() -> None:
    data = b"From - \nSubject: one\n\nbody\n\nFrom - \nSubject: two\n\nbody\n"
    assert [m.split(b"\r\n")[0] for m in messages(data)] == [b"Subject: one", b"Subject: two"]


def test_a_file_with_crlf_is_kept_as_it_is() -> None:
    body = b"Subject: one\r\n\r\nbody with a bare\nLF and \x80\xff\r\n"
    data = FROM.encode().replace(b"\n", b"\r\n") + body + b"\r\n" + FROM.encode().replace(b"\n", b"\r\n") + body
    assert messages(data) == [body, body]


def lengthy(header: str, body: str, length: int | None = None) -> str:
    return f"{FROM}{header}Content-Length: {len(body) if length is None else length}\n\n{body}\n"


def test_mboxcl2_keeps_unquoted_from_lines_in_the_body() -> None:
    inner = f"see:\n\n{FROM}Subject: inner\n\n>From a quote\n"
    data = (lengthy("Subject: a\n", inner) + lengthy("Subject: b\n", "plain\n")).encode()
    found = messages(data)
    assert len(found) == 2
    assert found[0].endswith(inner.replace("\n", "\r\n").encode())


def test_mboxcl_is_unquoted() -> None:
    data = (lengthy("Subject: a\n", ">From x\n") + lengthy("Subject: b\n", "plain\n")).encode()
    assert messages(data)[0].endswith(b"\r\n\r\nFrom x\r\n")


@pytest.mark.parametrize("lie", [0, 1, 7, 40, 10_000_000, 99999999999])
def test_a_content_length_that_lies_discredits_all(lie: int) -> None:
    data = (lengthy("Subject: a\n", "text of a\n", lie) + lengthy("Subject: b\n", "text of b\n")).encode()
    found = messages(data)
    assert len(found) == 2
    assert found[0].endswith(b"\r\n\r\ntext of a\r\n") and found[1].endswith(b"\r\n\r\ntext of b\r\n")


def test_a_length_that_swallows_the_next_message_is_not_believed_when_another_lies() -> None:
    second = lengthy("Subject: b\n", "text of b\n")
    first = lengthy("Subject: a\n", "text of a\n", len("text of a\n") + 1 + len(second))
    third = lengthy("Subject: c\n", "text of c\n", 3)
    assert len(messages((first + second + third).encode())) == 3


@pytest.mark.parametrize(
    ("header", "flags"),
    [
        ("Status: RO\n", {"\\Seen"}),
        ("Status: O\n", set()),
        ("Status: RO\nX-Status: AFT\n", {"\\Seen", "\\Answered", "\\Flagged", "\\Draft"}),
        ("X-Status: D\n", {"\\Deleted"}),
        ("X-Keywords: work  $Label1\n", {"work", "$Label1"}),
        ("X-Mozilla-Status: 0001\nX-Mozilla-Keys: $label1 later\n", {"\\Seen", "$label1", "later"}),
        ("X-Mozilla-Status: 1007\n", {"\\Seen", "\\Answered", "\\Flagged", "$Forwarded"}),
        ("X-Mozilla-Status: zzzz\n", set()),
    ],
)
def test_flags(header: str, flags: set[str]) -> None:
    (item,) = items(f"{FROM}Subject: x\n{header}\nbody\n".encode())
    assert item.flags == flags


def test_what_thunderbird_only_forgot_to_compact_away_is_left_out() -> None:
    skipped = Skipped()
    data = f"{FROM}Subject: x\nX-Mozilla-Status: 0009\n\nbody\n".encode()
    assert list(mbox.read(data, "box", skipped, size_max=SIZE_MAX)) == []
    assert sum(skipped.counts.values()) == 1


def test_gmail_labels_become_mailboxes_and_flags() -> None:
    line = "From 1828754568043628583@xxx Mon Apr 07 14:31:02 +0000 2025\r\n"
    data = (
        line + "X-GM-THRID: 1\r\nX-Gmail-Labels: =?UTF-8?Q?Bo=C3=AEte_de_r=C3=A9ception,Non_lus?=\r\n"
        " =?UTF-8?Q?,Work/Plans,\"A, b\",Suivis?=\r\nSubject: x\r\n\r\nbody\r\n\r\n"
    ).encode()  # fmt: skip
    (item,) = items(data)
    assert item.mailboxes == ("INBOX", "Work/Plans", "A, b")
    assert item.flags == {"\\Flagged"}
    assert item.internaldate == 1744036262


def test_a_message_over_the_limit_is_named_and_the_rest_goes_on() -> None:
    data = f"{FROM}Subject: big\n\n{'x' * 5000}\n\n{FROM}Subject: small\n\nok\n".encode()
    found = list(mbox.read(data, "box", Skipped(), size_max=1000))
    assert isinstance(found[0], Bad) and "box#1" in found[0].source
    assert isinstance(found[1], Item) and b"".join(found[1].chunks) == b"Subject: small\r\n\r\nok\r\n"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"From ",
        b"From \n",
        FROM.encode(),
        b"\n\n\n" + FROM.encode() + b"\n\n",
        b"From - \n\n\nFrom - \n\n",
    ],
)
def test_odds_and_ends_neither_fail_nor_make_messages(data: bytes) -> None:
    assert not [found for found in mbox.read(data, "box", Skipped(), size_max=SIZE_MAX) if isinstance(found, Item)]


def test_a_header_without_a_body_keeps_its_empty_line() -> None:
    data = f"{FROM}Subject: one\n\n{FROM}Subject: two\n\n\n".encode()
    assert messages(data) == [b"Subject: one\r\n\r\n", b"Subject: two\r\n\r\n"]


def test_mapped_and_in_memory_give_the_same(tmp_path: Path) -> None:
    dice = random.Random(7)
    lines = ["", "From me to you", ">From x", "text " * 30, "Subject: y", FROM.strip(), "\x00\xff"]
    for number in range(60):
        text = FROM + "Subject: s\n\n" + "".join(dice.choice(lines) + "\n" for _ in range(dice.randint(0, 60)))
        data = text.encode("latin-1")
        path = tmp_path / f"{number}"
        path.write_bytes(data)
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            again = [
                b"".join(i.chunks)
                for i in mbox.read(mapped, "box", Skipped(), size_max=SIZE_MAX)
                if isinstance(i, Item)
            ]
        assert again == [
            b"".join(i.chunks) for i in mbox.read(data, "box", Skipped(), size_max=SIZE_MAX) if isinstance(i, Item)
        ]


def test_long_messages_come_in_slices_that_join(monkeypatch: pytest.MonkeyPatch) -> None:
    body = "".join(f"{n} >From\n>From {n}\n" for n in range(500))
    data = f"{FROM}Subject: long\n\n{body}".encode()
    whole = messages(data)
    monkeypatch.setattr(mbox, "_SLICE", 64)
    assert messages(data) == whole
    assert whole[0] == ("Subject: long\n\n" + body.replace("\n>From", "\nFrom")).replace("\n", "\r\n").encode()


def test_pages_behind_are_given_back_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mbox, "_BEHIND_MAX", 1 << 16)
    data = b"".join(f"{FROM}Subject: {n}\n\n{'body ' * 2000}\n\n".encode() for n in range(100))
    path = tmp_path / "box"
    path.write_bytes(data)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        found = [
            b"".join(item.chunks)
            for item in mbox.read(mapped, "box", Skipped(), size_max=SIZE_MAX)
            if isinstance(item, Item)
        ]
    assert found == messages(data) and len(found) == 100
