"""Transcripts as data: `transcripts/*.txt`.

C: a line from the client. E: the next event, as an expression. S: a line that a server writes. F: formatters that write
the S lines above them (several F lines are joined). X: an expression that holds. Events that a block of C lines makes
must all be named by the E lines that follow it.
"""

from pathlib import Path

import pytest

from mailkeep.mail import flags as mail_flags
from mailkeep.mail.numset import NumSet
from mailkeep.wire import imap_command, imap_response, imap_server
from tests.wire.feeding import events

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))


def numbers(text: str) -> NumSet:
    return NumSet.parse(text.encode("ascii"))


NAMES = {**vars(imap_command), **vars(imap_response), **vars(imap_server), **vars(mail_flags), "numbers": numbers}
# The formatter `flags` and the module of that name, the command Store and the word: the wire's own win.
NAMES["flags"] = imap_response.flags


def lines(path: Path) -> list[tuple[str, str]]:
    text = path.read_text(encoding="utf-8")
    return [(line[0], line[3:]) for line in text.split("\n") if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=[path.stem for path in TRANSCRIPTS])
def test_client_lines_make_the_events(path: Path) -> None:
    script = lines(path)
    sent = "".join(text + "\r\n" for kind, text in script if kind == "C").encode("utf-8")
    expected = [eval(text, NAMES) for kind, text in script if kind == "E"]
    assert events([sent]) == expected
    assert events([sent[i : i + 1] for i in range(len(sent))]) == expected
    assert events([line + b"\n" for line in sent.split(b"\n")[:-1]]) == expected


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=[path.stem for path in TRANSCRIPTS])
def test_server_lines_are_what_the_formatters_write(path: Path) -> None:
    said = made = b""
    previous = ""
    for kind, text in lines(path):
        if kind == "S":
            if previous == "F":
                assert made == said
                said = made = b""
            said += text.encode("utf-8") + b"\r\n"
        elif kind == "F":
            made += eval(text, NAMES)
        elif kind == "X":
            assert eval(text, NAMES), text
        previous = kind if kind in "SF" else previous
    assert made == said
