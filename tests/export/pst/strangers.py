"""What other people's readers find in a PST, all in one shape: to be compared with what was written, field by field.

libpff (pypff, pffexport), libpst (readpst), npm's pst-extractor, and pypstreader; none shares code with another.
Every program runs with a time limit, as a child.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.packages import node_modules, pypstreader
from tests.programs import find_program

TIMEOUT_S = 1200  # for 100,000 messages on a machine that has much to do


@dataclass
class Found:
    """A message. Times in seconds since 1970; attachments by name with the SHA-256 of their bytes, or the message."""

    folder: str = ""
    subject: str = ""
    sender: str = ""
    sender_address: str = ""
    recipients: list[tuple[int, str, str]] = field(default_factory=list)
    delivered: int = 0
    submitted: int = 0
    read: bool = False
    text: str = ""
    html: bytes = b""
    attachments: list[tuple[str, Any]] = field(default_factory=list)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def seconds(ticks: int) -> int:
    return (ticks - 116_444_736_000_000_000) // 10_000_000


# --- libpff ----------------------------------------------------------------------------------------------------------


def by_pypff(path: Path) -> tuple[dict[str, int], list[Found]]:
    """Messages by folder, and all messages; those that are embedded are None, as pypff cannot open them."""
    import pypff

    file = pypff.file()
    file.open(str(path))
    folders: dict[str, int] = {}
    messages: list[Found] = []

    def walk(folder: Any, names: tuple[str, ...]) -> None:
        count = folder.get_number_of_sub_messages()
        folders["/".join(names)] = count
        for index in range(count):
            messages.append(_pypff_message(folder.get_sub_message(index), "/".join(names)))
        for index in range(folder.get_number_of_sub_folders()):
            child = folder.get_sub_folder(index)
            walk(child, (*names, child.name or ""))

    walk(file.get_root_folder(), ())
    file.close()
    return folders, messages


def _values(item: Any, number: int = 0) -> dict[int, bytes]:
    """Raw values by tag, of one of an item's sets."""
    entries = item.get_record_set(number).entries
    return {entry.entry_type << 16 | entry.value_type: entry.data or b"" for entry in entries if entry.entry_type}


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-16-le").removesuffix("\0")


def _pypff_message(message: Any, folder: str) -> Found:
    values = _values(message)
    found = Found(folder)
    subject = _text(values.get(0x0037001F))
    found.subject = subject[2:] if subject[:1] == "\x01" else subject
    found.sender = _text(values.get(0x0042001F))
    found.sender_address = _text(values.get(0x0065001F))
    found.delivered = seconds(int.from_bytes(values[0x0E060040], "little"))
    found.submitted = seconds(int.from_bytes(values[0x00390040], "little"))
    found.read = bool(int.from_bytes(values[0x0E070003], "little") & 1)
    found.text = _text(values.get(0x1000001F))
    found.html = values.get(0x10130102, b"")
    recipients = message.recipients
    for number in range(recipients.get_number_of_record_sets() if recipients is not None else 0):
        row = _values(recipients, number)
        kind = int.from_bytes(row[0x0C150003], "little")
        found.recipients.append((kind, _text(row.get(0x3001001F)), _text(row.get(0x3003001F))))
    for index in range(message.get_number_of_attachments()):
        attachment = message.get_attachment(index)
        own = _values(attachment)
        name = _text(own.get(0x3707001F) or own.get(0x3704001F))
        if int.from_bytes(own[0x37050003], "little") == 5:
            found.attachments.append((name, None))
        else:
            size = attachment.get_size() if own.get(0x37010102) else 0  # it refuses to read nothing
            found.attachments.append((name, digest(_read(attachment, size))))
    return found


def _read(attachment: Any, size: int) -> bytes:
    parts = []
    while size:
        part = attachment.read_buffer(min(size, 1 << 20))
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def by_pffexport(path: Path, work: Path) -> Path:
    """The folder of what it wrote out."""
    target = work / "pff"
    _run([find_program("pffexport"), "-q", "-m", "items", "-f", "all", "-t", str(target), str(path)])
    return target.with_name("pff.export")


# --- libpst ----------------------------------------------------------------------------------------------------------


def by_readpst(path: Path, work: Path) -> dict[str, int]:
    """Messages by folder, as .eml files that it wrote. Without `-j 0` its children lose some, now and then."""
    target = work / "readpst"
    target.mkdir()
    _run([find_program("readpst"), "-q", "-j", "0", "-e", "-D", "-o", str(target), str(path)])
    counts: dict[str, int] = {}
    for file in target.rglob("*.eml"):
        folder = str(file.parent.relative_to(target))
        counts[folder] = counts.get(folder, 0) + 1
    return counts


# --- the other two ---------------------------------------------------------------------------------------------------


def by_extractor(path: Path) -> Iterator[dict[str, Any]]:
    """What npm's pst-extractor finds: a dict for each message, and one for each folder."""
    script = Path(__file__).with_name("extractor.js")
    environment = os.environ | {"NODE_PATH": str(node_modules())}
    output = _run([find_program("node"), "--max-old-space-size=4096", str(script), str(path)], environment)
    return (json.loads(line) for line in output.splitlines() if line.startswith(b"{"))


def by_pypstreader(path: Path) -> Iterator[dict[str, Any]]:
    """What pypstreader finds, which stops at the first thing that is wrong."""
    script = Path(__file__).with_name("stream.py")
    environment = os.environ | {"PYTHONPATH": str(pypstreader())}
    output = _run([sys.executable, str(script), str(path)], environment)
    return (json.loads(line) for line in output.splitlines())


def _run(command: list[str], environment: dict[str, str] | None = None) -> bytes:
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, f"{command[0]}: {done.stderr.decode(errors='replace')[-2000:]}"
    return done.stdout
