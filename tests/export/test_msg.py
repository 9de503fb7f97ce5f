"""The export to MSG: what strangers read in the files, field by field; names, limits, and what is made again."""

import base64
import email
import email.policy
import functools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mailkeep.export import cfb, demo, mapi, msg, msg_reader
from mailkeep.export.to_mapi import EMBEDDED_MAX
from mailkeep.export.writer import Folder, Message, Options
from mailkeep.mail.letter import Attachment, Correspondent, Letter, letter_of
from tests.export import compound
from tests.messages import corpus, numbered
from tests.packages import node_modules
from tests.programs import find_program

HERE = Path(__file__).parent
FOLDERS = (Folder("INBOX", ("INBOX",)), Folder("Work/Übersicht", ("Work", "Übersicht")), Folder("empty", ("empty",)))
FLAGS = (
    frozenset[str](),
    frozenset(("\\Seen",)),
    frozenset(("\\Seen", "\\Answered", "Work")),
    frozenset(("\\Flagged", "Work", "later", "$MDNSent")),
    frozenset(("\\Draft", "\\Seen")),
    frozenset(("$Forwarded", "\\Seen")),
    frozenset(("$Forwarded", "\\Answered")),
)
ARRIVED = 1_700_000_000


@dataclass(frozen=True)
class Case:
    """A message that was exported, and its file."""

    name: str
    message: Message
    file: Path

    @functools.cached_property
    def letter(self) -> Letter:
        return letter_of(self.message.data)


@pytest.fixture(scope="session")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    """The corpus, our own ugly mail and the demo's as MSG files, written once."""
    place = tmp_path_factory.mktemp("msg")
    mail = [*corpus(), ("forwarded-30", forwarded(30))]
    mail += [(f"demo {number}", b"".join(item.chunks)) for number, item in enumerate(demo.items())]
    writer = msg.make(place, Options(folders=FOLDERS), None)
    made: list[Case] = []
    for index, folder in enumerate(FOLDERS[:2]):
        writer.folder(folder)
        chosen = list(enumerate(mail))[index::2]
        for start in range(0, len(chosen), 64):
            batch = [
                Message(number + 1, folder, number + 1, FLAGS[number % len(FLAGS)], ARRIVED + 61 * number, data)
                for number, (_, data) in chosen[start : start + 64]
            ]
            done = writer.write(batch)
            made += [
                Case(mail[message.uid - 1][0], message, place / written.file)
                for message, written in zip(batch, done, strict=True)
            ]
    writer.folder(FOLDERS[2])
    writer.finish()
    assert msg.count(place) == len(mail) and (place / "empty").is_dir()
    return made


def forwarded(depth: int) -> bytes:
    """A message in a message, deeper than items go: the innermost is a file."""
    data = b"Subject: innermost\r\n\r\nx"
    for level in range(depth):
        data = b"Subject: level %d\r\nTo: a@example.org\r\nContent-Type: message/rfc822\r\n\r\n" % level + data
    return data


def readings(command: list[str], cases: list[Case], **environment: str) -> Iterator[tuple[Case, dict[str, Any]]]:
    done = subprocess.run(
        command,
        input="".join(f"{case.file}\n" for case in cases),
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"{cases[len(lines)].name}: {done.stderr[-2000:]}"
    return zip(cases, map(json.loads, lines), strict=True)


# --- what is in a file, as any reader must see it --------------------------------------------------------------------


def line(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f]+", " ", text).strip()


def person(who: Correspondent) -> tuple[str, str]:
    return line(who.name) or who.address, who.address


def recipients(letter: Letter) -> list[list[object]]:
    everybody = [
        [*person(who), kind] for kind, people in enumerate((letter.to, letter.cc, letter.bcc), 1) for who in people
    ]
    return [one for one in everybody if one[1]][: msg.OBJECTS_MAX]


def text_of(letter: Letter) -> str | None:
    return None if not letter.text else letter.text.replace("\r", "").replace("\n", "\r\n")


def flag_bits(case: Case) -> int:
    letter, flags = case.letter, case.message.flags
    return ("\\Seen" in flags) + 8 * ("\\Draft" in flags) + 16 * bool(letter.attachments)


def compare(found: dict[str, Any], letter: Letter, *, depth: int = 0) -> None:
    """What is the same in all readers' words, in the message and in those inside it."""
    assert found["subject"] == mapi.cut(line(letter.subject))
    assert found["recipients"] == recipients(letter)
    # msgreader takes the head of an embedded message's table for its first row, and 0 in it (recipients) for its end.
    if letter.date is not None and (found["sent"] is not None or not depth or found["recipients"]):
        assert found["sent"] == max(letter.date.timestamp(), -11_644_473_599)
    assert found["text"] == text_of(letter)
    if not letter.html:
        assert found["html"] is None or found["html"] == ""
    else:
        assert without_charset(found["html"]) == without_charset(letter.html)
    assert len(found["attachments"]) == len(letter.attachments)
    for there, attachment in zip(found["attachments"], letter.attachments, strict=True):
        compare_attachment(there, letter, attachment, depth=depth)


def without_charset(html: str) -> str:
    return re.sub(r"(?i)(charset\s*=\s*[\"']?)[\w.:-]+", r"\1", html.replace("\0", ""))


def compare_attachment(there: dict[str, Any], letter: Letter, attachment: Attachment, *, depth: int) -> None:
    data = letter.content(attachment)
    if attachment.message and data and depth + 1 < EMBEDDED_MAX:
        assert there["data"] is None
        compare(there["message"], letter_of(data), depth=depth + 1)
        return
    assert base64.b64decode(there["data"]) == data
    expected = re.sub('[<>:"/\\\\|?*]', "_", attachment.name)
    assert there["name"] == expected or len(expected) > 200 or not expected.isprintable()
    assert there["type"] == attachment.media_type
    assert (there["cid"] or None) == attachment.content_id
    assert there["hidden"] == attachment.referred


# --- strangers -------------------------------------------------------------------------------------------------------


def test_extract_msg_reads_every_file(cases: list[Case]) -> None:
    for case, found in readings([sys.executable, str(HERE / "extracted.py")], cases):
        try:
            compare(found, case.letter)
            compare_envelope(found, case)
            assert found["categories"] == categories(case)
        except AssertionError as error:
            raise AssertionError(case.name) from error
        assert found["read"] == ("\\Seen" in case.message.flags)
        assert found["flagged"] == (mapi.FLAGGED if "\\Flagged" in case.message.flags else None)
        icons = {"\\Answered": mapi.ICON_REPLIED, "$Forwarded": mapi.ICON_FORWARDED}
        assert found["icon"] == next((icons[flag] for flag in icons if flag in case.message.flags), None)
        assert found["importance"] in (0, 1, 2)


def categories(case: Case) -> list[str]:
    return sorted(case.message.flags & {"Work", "later"})


def compare_envelope(found: dict[str, Any], case: Case) -> None:
    """What the account knows of the message itself."""
    assert found["class"] in ("IPM.Note", "IPM.Note.SMIME")
    assert found["arrived"] == case.message.internaldate
    assert found["flags"] == flag_bits(case)
    sender = case.letter.sender or case.letter.from_
    assert found["sender"] == (list(person(sender[0])) if sender else ["", ""])
    head = case.message.data[: case.letter.root.body]
    if head.isascii():
        assert (found["headers"] or "") == head.decode().replace("\0", "")


def test_msgreader_reads_every_file(cases: list[Case]) -> None:
    command = [find_program("node"), str(HERE / "msgreader.js")]
    for case, found in readings(command, cases, NODE_PATH=str(node_modules())):
        try:
            compare(found, case.letter)
            compare_envelope(found, case)
            assert found["categories"] == categories(case)[-1:]
        except AssertionError as error:
            raise AssertionError(case.name) from error


def test_msgconvert_makes_mail_of_the_files(cases: list[Case], tmp_path: Path) -> None:
    """Debian's Email::Outlook::Message. It takes the header block that is in the file for its own, so that broken ones
    become broken mail: only the demo's mail is compared."""
    program = find_program("msgconvert")
    chosen = [case for case in cases if case.name.startswith("demo")][::3]
    paths = [tmp_path / f"{number}.msg" for number in range(len(chosen))]
    for path, case in zip(paths, chosen, strict=True):
        path.symlink_to(case.file)
    done = subprocess.run([program, *map(str, paths)], cwd=tmp_path, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    for path, case in zip(paths, chosen, strict=True):
        made = email.message_from_bytes(path.with_suffix(".eml").read_bytes(), policy=email.policy.default)
        letter = case.letter
        assert made["Subject"].strip() == letter.subject
        assert [one.addr_spec for one in made["From"].addresses] == [who.address for who in letter.from_]
        assert made["Date"].datetime == letter.date and made["Message-ID"] == letter.message_id
        leaves = [part for part in made.walk() if not part.is_multipart()]
        for kind, body in (("text/plain", letter.text), ("text/html", letter.html)):
            if body:
                texts = [part.get_content() for part in leaves if part.get_content_type() == kind]
                assert any(words(body) == words(text) for text in texts), case.name
        files = [part.get_payload(decode=True) for part in leaves]
        wanted = [letter.content(one) for one in letter.attachments if not one.media_type.startswith("message/")]
        assert all(data in files or data.replace(b"\r\n", b"\n") in files for data in wanted), case.name


def words(text: str) -> list[str]:
    return text.replace("\0", "").split()


# --- names, limits, and what is made again ---------------------------------------------------------------------------


def exported(place: Path, *data: bytes, flags: frozenset[str] = frozenset()) -> list[Any]:
    place.mkdir(exist_ok=True)
    writer = msg.make(place, Options(folders=FOLDERS), None)
    writer.folder(FOLDERS[0])
    done = writer.write([Message(n, FOLDERS[0], n, flags, ARRIVED, one) for n, one in enumerate(data, 1)])
    writer.finish()
    return done


def test_files_have_a_name_and_the_time_of_the_message(tmp_path: Path) -> None:
    (done,) = exported(tmp_path, numbered(1, subject='Re: a/b "c"'))
    assert done.file == "INBOX/2023-11-14 Re_ a_b _c_ (1).msg" and done.note is None
    assert (tmp_path / done.file).stat().st_mtime == ARRIVED


def test_every_file_is_a_sound_compound_file(cases: list[Case]) -> None:
    for case in cases[:: 1 + len(cases) // 150]:
        tree = compound.read(case.file.read_bytes())
        assert {"__properties_version1.0", "__nameid_version1.0"} <= tree.keys(), case.name
        check_object(tree, 32)


def check_object(tree: compound.Tree, head: int) -> None:
    """The table of properties and the streams agree, and no string is empty ([MS-OXMSG] section 2.4)."""
    table = tree["__properties_version1.0"]
    assert isinstance(table, bytes) and (len(table) - head) % 16 == 0
    sizes: dict[str, int] = {}
    for at in range(head, len(table), 16):
        tag = int.from_bytes(table[at : at + 4], "little")
        assert table[at + 4 : at + 8] == b"\6\0\0\0"
        if tag & 0xFFFF in (0x1F, 0x102, 0x101F, 0xD):
            sizes[f"__substg1.0_{tag:08X}"] = int.from_bytes(table[at + 8 : at + 12], "little")
    streams = {name: value for name, value in tree.items() if name.startswith("__substg1.0_") and "-" not in name}
    assert streams.keys() == sizes.keys()
    for name, value in streams.items():
        if isinstance(value, bytes):
            assert sizes[name] == len(value) + 2 * name.endswith("001F"), name
            assert value or not name.endswith("001F"), name
        else:
            assert sizes[name] == 0xFFFFFFFF
            check_object(value, 24)
    inner = [value for name, value in tree.items() if name.startswith(("__recip", "__attach"))]
    for value in inner:
        assert isinstance(value, dict)
        check_object(value, 8)
    if head > 8:
        assert sum(int.from_bytes(table[at : at + 4], "little") for at in (16, 20)) == len(inner)


def test_the_same_message_is_the_same_file(tmp_path: Path) -> None:
    for place in ("a", "b"):
        exported(tmp_path / place, *(data for _, data in corpus()[:100]))
    names = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.msg"))
    assert len(names) == 100
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)


def test_what_an_msg_file_has_no_room_for_is_kept_and_told(tmp_path: Path) -> None:
    everybody = ", ".join(f"u{n}@example.org" for n in range(3000))
    head = "From: a@example.org\r\nSubject: much\r\n"
    part = "--b\r\nContent-Type: application/x-y\r\n\r\n{}\r\n"
    parts = "".join(part.format(n) for n in range(2500))
    crowd = f"{head}To: {everybody}\r\n\r\nhello\r\n".encode()
    heap = f"{head}Content-Type: multipart/mixed; boundary=b\r\n\r\n{parts}--b--\r\n".encode()
    people, things = exported(tmp_path, crowd, heap)
    assert people.note == "3000 recipients, of which an MSG file lists 2048"
    item = msg_reader.read((tmp_path / people.file).read_bytes())
    assert len(item.recipients) == 2048 and everybody in str(item.properties[mapi.TRANSPORT_MESSAGE_HEADERS])
    assert things.note == "2500 attachments, of which an MSG file has 2048; the last is all"
    item = msg_reader.read((tmp_path / things.file).read_bytes())
    assert len(item.attachments) == 2048 and item.attachments[-1].data == heap


def test_a_big_message_is_written_piece_by_piece(tmp_path: Path) -> None:
    data = os.urandom(9_000_000)
    body = base64.encodebytes(data).replace(b"\n", b"\r\n")
    head = b"Subject: big\r\nContent-Type: application/x-y; name=big.bin\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    (done,) = exported(tmp_path, head + body)
    raw = (tmp_path / done.file).read_bytes()
    compound.read(raw)
    (attached,) = msg_reader.read(raw).attachments
    assert attached.data == data and attached.properties[mapi.ATTACH_LONG_NAME] == "big.bin"


def test_counting_reads_the_files(tmp_path: Path) -> None:
    exported(tmp_path, numbered(1), numbered(2))
    assert msg.count(tmp_path) == 2
    (tmp_path / "INBOX" / "no.msg").write_bytes(b"something else")
    (tmp_path / "INBOX" / "other.txt").write_bytes(cfb.SIGNATURE)
    assert msg.count(tmp_path) == 2


def test_a_resumed_export_is_the_same_and_knows_its_size(tmp_path: Path) -> None:
    mail = [Message(n, FOLDERS[0], n, frozenset(), ARRIVED, numbered(n)) for n in range(1, 21)]
    places = tmp_path / "whole", tmp_path / "resumed"
    sizes = []
    for place, cut in zip(places, (20, 8), strict=True):
        place.mkdir()
        writer = msg.make(place, Options(folders=FOLDERS), None)
        writer.folder(FOLDERS[0])
        writer.write(mail[:cut])
        state = writer.checkpoint()
        if cut < 20:
            writer.write(mail[cut : cut + 3])
            writer.abandon()
            writer = msg.make(place, Options(folders=FOLDERS), state)
            writer.folder(FOLDERS[0])
            writer.write(mail[cut:])
        writer.finish()
        sizes.append(writer.size)
    files = [{path.name: path.read_bytes() for path in place.rglob("*.msg")} for place in places]
    assert files[0] == files[1] and len(files[0]) == 20
    assert sizes[0] == sizes[1] == sum(map(len, files[0].values()))
