"""The export to MSG: what strangers read in the files, field by field; names, limits, and what is made again."""

import base64
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

from mailkeep.export import demo, mapi, msg
from mailkeep.export.to_mapi import EMBEDDED_MAX
from mailkeep.export.writer import Folder, Message, Options
from mailkeep.mail.letter import Attachment, Correspondent, Letter, letter_of
from tests.messages import corpus
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
    mail = [*corpus(), *((f"demo {n}", b"".join(item.chunks)) for n, item in enumerate(demo.items()))]
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
