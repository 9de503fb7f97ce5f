"""Messages as they are, in a tree and in a zip: every byte, also after a kill, for every reader of zips."""

import os
import random
import shutil
import subprocess
import zipfile
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mailkeep.errors import UsageError
from mailkeep.export import eml, zip64
from mailkeep.export.writer import Folder, Message, Options, Writer
from mailkeep.export.zip64 import Packed, Zip, count_files, pack
from tests.messages import corpus
from tests.programs import find_program

NAMES = ("INBOX", "Räume/Größe", "空", "Empty/Below")
FOLDERS = tuple(Folder(name, tuple(name.split("/"))) for name in NAMES)
WHEN = 1_768_471_201  # 2026-01-15 10:00:01 UTC
PERS = {"tree": "message", "zip": "all"}


def messages() -> list[Message]:
    """All the ugly mail there is, in three folders."""
    mail = [*corpus(), ("huge", b"Subject: huge\r\n\r\n" + random.Random(3).randbytes(3 << 20)), ("none", b"")]
    return [
        Message(number, FOLDERS[number * 3 // (len(mail) + 1)], number, frozenset(), WHEN + number, data)
        for number, (_, data) in enumerate(mail, 1)
    ]


def options(per: str) -> Options:
    return Options(per=per, folders=FOLDERS)


def batches(mail: Sequence[Message], size: int = 50) -> list[tuple[Folder, list[Message]]]:
    found = []
    for folder in FOLDERS:
        own = [message for message in mail if message.folder is folder]
        found += [(folder, own[start : start + size]) for start in range(0, max(len(own), 1), size)]
    return found


def write(place: Path, per: str, mail: Sequence[Message]) -> dict[str, bytes]:
    """The whole export; file → bytes, as the writer said it."""
    if per == "message":
        place.mkdir()
    writer = eml.make(place, options(per), None)
    files = {}
    for folder, batch in batches(mail):
        writer.folder(folder)
        for message, written in zip(batch, writer.write(batch), strict=True):
            assert written.note is None and written.file not in files
            files[written.file] = message.data
    writer.checkpoint()
    writer.finish()
    return files


def read(place: Path) -> dict[str, bytes]:
    """By Python's own reader, or from the disk."""
    if place.is_dir():
        return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}
    with zipfile.ZipFile(place) as archive:
        assert archive.testzip() is None
        return {info.filename: archive.read(info) for info in archive.infolist() if not info.is_dir()}


@pytest.mark.parametrize("per", PERS.values(), ids=PERS)
def test_ugly_mail_comes_out_byte_for_byte(tmp_path: Path, per: str) -> None:
    mail = messages()
    files = write(tmp_path / "out", per, mail)
    assert read(tmp_path / "out") == files and sorted(files.values()) == sorted(message.data for message in mail)
    assert eml.count(tmp_path / "out") == len(mail)


def test_the_tree_has_times_and_empty_folders(tmp_path: Path) -> None:
    files = write(tmp_path / "out", "message", messages()[:1])
    assert (tmp_path / "out" / next(iter(files))).stat().st_mtime == WHEN + 1
    assert (tmp_path / "out" / "Empty" / "Below").is_dir() and (tmp_path / "out" / "空").is_dir()


@pytest.mark.parametrize("per", PERS.values(), ids=PERS)
def test_taken_up_at_any_checkpoint_it_becomes_the_same(tmp_path: Path, per: str) -> None:
    mail = messages()[::9]
    expected = write(tmp_path / "whole", per, mail)
    place = tmp_path / "pieces"
    if per == "message":
        place.mkdir()
    state: bytes | None = None
    steps = batches(mail, 9)
    for number, (folder, batch) in enumerate(steps):
        writer = eml.make(place, options(per), state)
        writer.folder(folder)
        writer.write(batch)
        state = writer.checkpoint()
        beyond(writer, steps[number + 1 :][:1])
        writer.abandon()
    eml.make(place, options(per), state).finish()
    after_finish = eml.make(place, options(per), state)  # killed before anybody noted that it was finished
    after_finish.finish()
    assert read(place) == expected and eml.count(place) == len(mail)
    if per == "all":
        assert place.read_bytes() == (tmp_path / "whole").read_bytes()


def beyond(writer: Writer, steps: list[tuple[Folder, list[Message]]]) -> None:
    """Work that no checkpoint knows of."""
    for folder, batch in steps:
        writer.folder(folder)
        writer.write(batch)


def test_strangers_read_the_zip(tmp_path: Path) -> None:
    mail = messages()[::7]
    files = write(tmp_path / "out.zip", "all", mail)
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        infos = archive.infolist()
    assert [info.filename for info in infos if info.is_dir()] == [f"{name}/" for name in NAMES]
    first = next(info for info in infos if not info.is_dir())
    assert datetime(*first.date_time, tzinfo=UTC).timestamp() == (WHEN + 1) // 2 * 2
    assert first.external_attr >> 16 == 0o100600 and first.flag_bits == 1 << 11
    assert first.extra[:4] == b"UT\x05\x00"
    unzip = find_program("unzip")
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    subprocess.run([unzip, "-q", "out.zip", "-d", "out"], cwd=tmp_path, check=True, env=environment)
    assert read(tmp_path / "out") == files
    assert (tmp_path / "out" / first.filename).stat().st_mtime == WHEN + 1
    seven = shutil.which("7z") or shutil.which("7zz")
    if seven is not None:
        subprocess.run([seven, "t", "-bd", "out.zip"], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)


def test_a_zip_of_more_than_32_bits(tmp_path: Path) -> None:
    """Offsets and counts that outgrow their fields, without four gigabytes: the archive begins behind a hole."""
    place = tmp_path / "big.zip"
    place.touch()
    os.truncate(place, (1 << 32) - 40)
    archive = Zip(place, size=(1 << 32) - 40)
    bodies = {f"{number}.eml": b"%d" % number * 9 for number in range(3)}
    for name, body in bodies.items():
        archive.add(name, pack(body), mtime=WHEN)
    archive.sync()
    archive.finish()
    with zipfile.ZipFile(place) as found:
        assert {name: found.read(name) for name in found.namelist()} == bodies
        assert [info.header_offset >> 32 for info in found.infolist()] == [0, 1, 1]
    assert count_files(place) == 3
    place.unlink()


def test_a_zip_of_more_than_16_bits(tmp_path: Path) -> None:
    place = tmp_path / "many.zip"
    archive = Zip(place)
    empty = Packed(0, 0, 0, b"")
    for number in range(70_000):
        archive.add(f"{number}", empty, mtime=WHEN)
    archive.finish()
    assert count_files(place) == 70_000
    with zipfile.ZipFile(place) as found:
        assert len(found.namelist()) == 70_000


def test_an_entry_of_more_than_32_bits_has_its_sizes_in_the_extra_field(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zip64, "_MAX32", 1000)
    body = b"\x00\xff" * 600
    archive = Zip(tmp_path / "out.zip")
    archive.add("before", Packed(zlib.crc32(b"x"), 1, 0, b"x"), mtime=WHEN)
    archive.add("big", Packed(zlib.crc32(body), len(body), 0, body), mtime=WHEN)
    archive.add("after", Packed(zlib.crc32(b"y"), 1, 0, b"y"), mtime=WHEN)
    archive.finish()
    raw = (tmp_path / "out.zip").read_bytes().replace((1000).to_bytes(4, "little"), b"\xff\xff\xff\xff")
    (tmp_path / "out.zip").write_bytes(raw)
    with zipfile.ZipFile(tmp_path / "out.zip") as found:
        assert found.read("big") == body and found.read("after") == b"y" and found.testzip() is None


def test_damage_is_found_when_it_is_counted(tmp_path: Path) -> None:
    place = tmp_path / "out.zip"
    write(place, "all", messages()[:20])
    whole = place.read_bytes()
    assert count_files(place) == 20
    for damaged in (
        whole[:-30],
        whole[100:],
        b"",
        b"PK",
        whole.replace(b"PK\3\4", b"PK\3\5", 5),
        whole[:-10] + b"\0" * 10,
    ):
        place.write_bytes(damaged)
        with pytest.raises(UsageError, match="cannot be read as a zip"):
            count_files(place)


@pytest.mark.parametrize("when", [0, -1, 1 << 31, 1 << 40, -(1 << 40), 10**18])
def test_any_date_can_be_written(tmp_path: Path, when: int) -> None:
    for per in PERS.values():
        place = tmp_path / per
        write(place, per, [Message(1, FOLDERS[0], 1, frozenset(), when, b"x")])
        assert eml.count(place) == 1
        if per == "all":
            assert read(place).popitem()[1] == b"x"
