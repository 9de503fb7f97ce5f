"""What is written is found by strangers: every field of every message of the corpus, byte for byte."""

from collections import Counter
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from mailkeep.export.demo import items
from mailkeep.export.pst import count
from mailkeep.export.writer import Message
from tests.export.pst import strangers
from tests.export.pst.check import check
from tests.export.pst.written import DEEP, INBOX, SENT, TRASH, expected, messages, write
from tests.messages import corpus

TOP = "Top of Outlook data file"
PATHS = {INBOX: f"{TOP}/Inbox", SENT: f"{TOP}/Sent", TRASH: f"{TOP}/Trash", DEEP: f"{TOP}/Work/Å/日本"}


@cache
def mail() -> dict[Any, list[Message]]:
    mails = [data for _, data in corpus()]
    return {
        INBOX: messages(INBOX, mails),
        SENT: messages(SENT, mails[:40]),
        TRASH: [],
        DEEP: messages(DEEP, mails[40:80]),
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("pst") / "corpus.pst"
    write(place, mail())
    return place


@cache
def wanted() -> dict[tuple[str, int], dict[str, Any]]:
    """What should be found, by folder and number in it."""
    return {
        (PATHS[folder], number): asdict(expected(message)) | {"folder": PATHS[folder]}
        for folder, found in mail().items()
        for number, message in enumerate(found)
    }


def numbered(found: list[dict[str, Any]]) -> dict[tuple[str, int], dict[str, Any]]:
    ordinal: Counter[str] = Counter()
    result = {}
    for one in found:
        result[one["folder"], ordinal[one["folder"]]] = one
        ordinal[one["folder"]] += 1
    return result


def test_the_checker_finds_nothing_wrong(place: Path) -> None:
    checker = check(place)
    assert checker.errors == []
    assert {path: number for path, number in checker.counts.items() if number} == {
        PATHS[folder]: len(found) for folder, found in mail().items() if found
    }


def test_count_is_of_all_folders(place: Path) -> None:
    assert count(place) == sum(map(len, mail().values()))


def test_libpff_finds_every_field(place: Path) -> None:
    folders, found = strangers.by_pypff(place)
    for folder, path in PATHS.items():
        assert folders[path] == len(mail()[folder])
    want = {key: one | {"attachments": _not_embedded(one["attachments"])} for key, one in wanted().items()}
    got = numbered([asdict(one) for one in found])
    assert got.keys() == want.keys()
    for key, one in want.items():
        assert got[key] == one


def _not_embedded(attachments: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    return [(name, inside if isinstance(inside, str) else None) for name, inside in attachments]


def test_pypstreader_finds_every_field(place: Path) -> None:
    lines = list(strangers.by_pypstreader(place))
    found = [_from_ticks(line) for line in lines if "subject" in line]
    names = {path: path.rpartition("/")[2] for path in PATHS.values()}
    want = {(names[path], number): one | {"folder": names[path]} for (path, number), one in wanted().items()}
    got = numbered(found)
    assert got.keys() == want.keys()
    for key, one in want.items():
        assert got[key] == one
    counts = {line["path"]: line["count"] for line in lines if "path" in line}
    assert {names[path]: counts[names[path]] for path in names} == {
        names[PATHS[folder]]: len(found) for folder, found in mail().items()
    }


def _from_ticks(line: dict[str, Any]) -> dict[str, Any]:
    line["html"] = bytes.fromhex(line["html"])
    line["delivered"], line["submitted"] = (strangers.seconds(line[name]) for name in ("delivered", "submitted"))
    line["recipients"] = [tuple(one) for one in line["recipients"]]
    line["attachments"] = [
        (name, _from_ticks(inside) if isinstance(inside, dict) else inside) for name, inside in line["attachments"]
    ]
    return line


def test_pst_extractor_finds_the_same(place: Path) -> None:
    lines = list(strangers.by_extractor(place))
    found = numbered([line for line in lines if "subject" in line])
    assert found.keys() == wanted().keys()
    for key, want in wanted().items():
        got = found[key]
        for name in ("subject", "sender", "sender_address", "read", "text"):
            assert got[name] == want[name], (key, name)
        assert (got["delivered"] // 1000, got["submitted"] // 1000) == (want["delivered"], want["submitted"])
        assert len(got["attachments"]) == len(want["attachments"])


def test_readpst_writes_all_out(place: Path, tmp_path: Path) -> None:
    counts = strangers.by_readpst(place, tmp_path)
    assert sum(counts.values()) == sum(map(len, mail().values()))


def test_pffexport_writes_all_out(place: Path, tmp_path: Path) -> None:
    written = strangers.by_pffexport(place, tmp_path)
    headers = [path for path in written.rglob("OutlookHeaders.txt") if "Attachments" not in path.parts]
    assert len(headers) == sum(map(len, mail().values()))
    attached = Counter(strangers.digest(path.read_bytes()) for path in written.rglob("Attachments/*") if path.is_file())
    for one in wanted().values():
        for _, inside in one["attachments"]:
            if isinstance(inside, str) and inside != strangers.digest(b""):
                assert attached[inside] > 0


def test_the_demo_account(tmp_path: Path) -> None:
    place = tmp_path / "demo.pst"
    mails = [b"".join(item.chunks) for item in items()]
    write(place, {INBOX: messages(INBOX, mails)})
    assert check(place).errors == []
    _, found = strangers.by_pypff(place)
    assert [one.subject for one in found] == [expected(message).subject for message in messages(INBOX, mails)]
