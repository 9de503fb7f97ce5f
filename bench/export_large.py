"""PST files larger than the tests make them, written by the real command and read again, message by message, by libpff.

Knows from a message's number what must be in it (`export_mail`): subject, text, attachment, folder. Reading is done in
a process of its own, whose memory is not the export's.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import export_mail

# Messages of each lot: 2 MB each, more than 2 GB in all; and many.
SIZES = {"heavy": int(os.environ.get("BENCH_HEAVY", "1150")), "plain": int(os.environ.get("BENCH_MESSAGES", "100000"))}


def run(place: Path) -> list[dict[str, object]]:
    """Each lot as a PST. Raises SystemExit when anything is missing or not as it was."""
    from bench import export

    rows: list[dict[str, object]] = []
    for lot, count in SIZES.items():
        size = export_mail.fill(place / lot, lot, count)
        out = place / f"{lot}.pst"
        done = export.run(
            [*export.program(), "export", lot, str(out), "--to", "pst", "--quiet", "--data", str(place / lot)], out
        )
        command = [sys.executable, "-m", "bench.export_large", str(out), lot, str(count)]
        proof = subprocess.run(command, capture_output=True, text=True, check=False)
        if proof.returncode != 0:
            raise SystemExit(f"{lot}: {proof.stdout[-2000:]}{proof.stderr[-2000:]}")
        rows.append({"lot": lot, "messages": count, "bytes": size, **asdict(done), **json.loads(proof.stdout)})
        rate = count / done.seconds
        print(
            f"{lot}: {count:,} messages, {size / 1e9:.2f} GB → {done.size / 1e9:.2f} GB in {done.seconds:.0f} s: "
            f"{rate:,.0f} messages/s, {size / done.seconds / 1e6:.0f} MB/s, memory {done.resident / 1e6:.0f} MB "
            f"({done.own / 1e6:.0f} MB its own); libpff reads all of them: {proof.stdout.strip()}",
            flush=True,
        )
        export.remove(out)
    return rows


def check(path: Path, lot: str, count: int) -> dict[str, int]:
    """Read every message of a PST with libpff and compare it. Raises SystemExit at the first difference."""
    import pypff

    seen = bytearray(count)
    octets = 0
    with open(path, "rb") as stream:
        file = pypff.file()
        file.open_file_object(stream)
        for folder, message in _messages(file.get_root_folder(), ()):
            number = int(message.subject.rpartition(" ")[2])
            if seen[number]:
                raise SystemExit(f"message {number} is there twice")
            seen[number] = 1
            octets += _compare(message, number, lot)
            wanted = export_mail.folder(number).replace("INBOX", "Inbox").split("/")  # as Outlook calls it
            if list(folder[-len(wanted) :]) != wanted:
                raise SystemExit(f"message {number} is in {folder}, not in {wanted}")
        file.close()
    if missing := seen.count(0):
        raise SystemExit(f"{missing} messages are missing, the first is {seen.index(0)}")
    return {"read": count, "octets": octets}


def _messages(folder: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    here = (*path, folder.name) if folder.name else path
    for number in range(folder.number_of_sub_messages):
        yield here, folder.get_sub_message(number)
    for number in range(folder.number_of_sub_folders):
        yield from _messages(folder.get_sub_folder(number), here)


def _compare(message: Any, number: int, lot: str) -> int:
    """Octets that were compared."""
    if message.subject != export_mail.subject(number):
        raise SystemExit(f"message {number} has the subject {message.subject!r}")
    raw = export_mail.LOTS[lot](number)
    body = message.plain_text_body
    found = body.decode() if isinstance(body, bytes) else body
    if _lines(found) != _lines(_text(number, lot)):
        raise SystemExit(f"message {number} has another text: {found[:200]!r}")
    headers = message.transport_headers
    if _lines(headers) != _lines(raw.partition(b"\r\n\r\n")[0].decode()):
        raise SystemExit(f"message {number} has other headers: {headers[:500]!r}")
    octets = len(found) + len(headers)
    wanted = [export_mail.attachment(number, 2 << 20)] if lot == "heavy" else []
    if message.number_of_attachments != len(wanted):
        raise SystemExit(f"message {number} has {message.number_of_attachments} attachments")
    for place, data in enumerate(wanted):
        attachment = message.get_attachment(place)
        if attachment.read_buffer(attachment.get_size()) != data:
            raise SystemExit(f"message {number} has another attachment")
        octets += len(data)
    return octets


def _lines(text: str) -> list[str]:
    return text.rstrip().splitlines()


def _text(number: int, lot: str) -> str:
    if lot == "heavy":
        return export_mail.text(number, 500)
    return export_mail.plain(number).partition(b"\r\n\r\n")[2].decode()


if __name__ == "__main__":
    print(json.dumps(check(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))
