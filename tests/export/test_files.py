"""Files of a tree: there whole or not at all, and durable when `sync` says so."""

import os
from pathlib import Path

import pytest

from mailkeep.errors import CannotWrite, UsageError
from mailkeep.export import files
from mailkeep.export.files import Files, Growing, replace_file


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    return tmp_path / "tree"


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that an fsync was asked for."""
    found: list[str] = []
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        sync(descriptor)

    monkeypatch.setattr(files.os, "fsync", fsync)
    return found


def test_files_come_into_folders_with_their_times(place: Path) -> None:
    tree = Files(place)
    tree.put("a/b/c.eml", b"one", mtime=1_000_000_000)
    tree.put("a/b/c.eml", memoryview(b"other"), mtime=-5)
    with tree.open("a/d.bin", mtime=10**30) as file:
        file.write(b"x" * 10)
    assert (place / "a/b/c.eml").read_bytes() == b"other" and (place / "a/b/c.eml").stat().st_mtime == -5
    assert tree.folder("e").is_dir() and tree.size == 3 + 5 + 10
    assert sorted(os.listdir(place.parent)) == ["tree"], "nothing is left beside it"


def test_a_file_that_was_not_finished_is_not_there(place: Path) -> None:
    tree = Files(place)
    tree.put("kept", b"before")
    with pytest.raises(ValueError, match="half"), tree.open("kept") as file:
        file.write(b"half of it")
        raise ValueError("half")
    with tree.open("one") as one, tree.open("two") as two:
        one.write(b"1")
        two.write(b"2")
    assert (place / "kept").read_bytes() == b"before" and (place / "one").read_bytes() == b"1"
    assert sorted(os.listdir(place.parent)) == ["tree"]


def test_a_few_are_synced_one_by_one_and_many_together(
    place: Path, synced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = Files(place)
    tree.put("a/b/c", b"x")
    tree.sync()
    assert synced == [str(place / "a/b/c"), str(place / "a/b"), str(place / "a"), str(place)]
    synced.clear()
    tree.sync()
    assert synced == [str(place)]
    whole: list[Path] = []
    monkeypatch.setattr(files, "sync_file_system", lambda path: whole.append(path) or True)
    for number in range(files.EACH_MAX + 1):
        tree.put(str(number), b"x")
    synced.clear()
    tree.sync()
    assert whole == [place] and synced == []


def test_without_syncfs_each_is_synced(place: Path, synced: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_syncfs", lambda: None)
    tree = Files(place)
    for number in range(files.EACH_MAX + 5):
        tree.put(f"f/{number}", b"x")
    tree.sync()
    assert len(set(synced)) == files.EACH_MAX + 5 + 2


def test_what_the_system_refuses_names_the_file(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = Files(place)
    tree.put("file", b"")
    with pytest.raises(CannotWrite, match=r"file/below could not be written: Not a directory"):
        tree.put("file/below", b"x")
    with pytest.raises(CannotWrite, match="could not be written: File name too long"):
        tree.put("x" * 300, b"x")
    (place.parent / "tree.new").unlink(missing_ok=True)
    (place.parent / "tree.new").symlink_to(place / "file")
    with pytest.raises(CannotWrite, match="symbolic link"):
        tree.put("other", b"evil")
    assert (place / "file").read_bytes() == b""
    for number, said in (
        (28, "the disk is full"),
        (122, "the disk is full"),
        (27, "larger than a file may be"),
        (5, "Input"),
    ):
        error = OSError(number, os.strerror(number))
        assert said in files.cannot_write("x", error).text


def test_a_growing_file_is_cut_back_to_where_it_was(tmp_path: Path) -> None:
    grown = Growing(tmp_path / "file")
    grown.write(b"a" * (files.BUFFER + 10))
    grown.write(b"bc")
    assert grown.size == files.BUFFER + 12
    grown.sync()
    kept = grown.size
    grown.write(b"beyond")
    grown.flush()
    grown.close()
    grown.close()
    again = Growing(tmp_path / "file", kept)
    again.write(b"!")
    again.sync()
    again.close()
    assert (tmp_path / "file").read_bytes() == b"a" * (files.BUFFER + 10) + b"bc!"
    with pytest.raises(UsageError, match="shorter than it was left"):
        Growing(tmp_path / "file", kept + 2)
    with pytest.raises(CannotWrite):
        Growing(tmp_path / "not" / "there")


def test_a_file_is_replaced_at_once(tmp_path: Path, synced: list[str]) -> None:
    replace_file(tmp_path / "state", b"1")
    replace_file(tmp_path / "state", b"2")
    assert (tmp_path / "state").read_bytes() == b"2" and os.listdir(tmp_path) == ["state"]
    assert synced[-2:] == [str(tmp_path / "state.new"), str(tmp_path)], "the file before its name"
