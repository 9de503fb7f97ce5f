"""Coverage-guided octets into the server's IMAP codec: events come, exceptions do not, and cutting changes nothing.

Alone: `python tests/fuzz/fuzz_imap.py -runs=100000`.
"""

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.fuzz.spelling import spelled

with atheris.instrument_imports(include=["mailkeep"]):
    from mailkeep.wire.imap_format import format_command
    from mailkeep.wire.imap_server import Bad, CommandReceived, Limits
    from tests.wire.feeding import events

LIMITS = Limits(line_max=4096, literal_max=512, append_max=2048)
# Octets alone would take for ever to spell a command: in half of the runs octets stand for words.
WORDS = (
    b"1 |NOOP|\r\n|UID |FETCH |STORE |SEARCH |COPY |MOVE |EXPUNGE|APPEND |SELECT |EXAMINE |CREATE |DELETE |"
    b"RENAME |LIST |LSUB |STATUS |LOGIN |AUTHENTICATE PLAIN |ENABLE |ID |IDLE\r\n|DONE\r\n|1:*|,|:|*|$|7|0|"
    b'4294967295|18446744073709551616| |(|)|[|]|<|>|"|\\|{|}|{3}\r\n|{1+}\r\n|~{2+}\r\n|{9999999+}\r\n|'
    b"{9999999}\r\n|abc|a|\0|\xff|\n|\r|.|-|+|&|&-|&U,BTFw-|INBOX |NIL|FLAGS |+FLAGS |-FLAGS.SILENT |\\Seen |"
    b"BODY|BODY.PEEK[|BINARY[|BINARY.SIZE[|HEADER|HEADER.FIELDS (|TEXT|MIME|1.2.|<0.9>|RFC822|ALL |FULL|"
    b"ENVELOPE |PREVIEW (LAZY)|(CHANGEDSINCE 1|VANISHED)|(UNCHANGEDSINCE 1)|OR |NOT |FROM |HEADER |UNSEEN |"
    b"KEYWORD |UID |SINCE |1-Feb-1994 |LARGER |MODSEQ |CHARSET UTF-8 |RETURN (|MIN |SAVE)|STATUS (SIZE)|"
    b'(SUBSCRIBED) |(QRESYNC (1 2 |CONDSTORE |(USE (|" 1-Feb-1994 00:00:00 +0000" |UTF8 (|=|1 NOOP\r\n|'
    b"1 UID FETCH |1 SEARCH |1 APPEND a "
).split(b"|")


def one_input(data: bytes) -> None:
    switches, octets = spelled(data, WORDS)
    accept, utf8, cut = bool(switches & 2), bool(switches & 4), 1 + switches // 8
    seen = events([octets], limits=LIMITS, utf8=utf8, accept=accept)
    pieces = [octets[i : i + cut] for i in range(0, len(octets), cut)]
    assert events(pieces, limits=LIMITS, utf8=utf8, accept=accept) == seen
    for event in seen:
        if isinstance(event, Bad):
            assert event.reply.count(b"\n") == 1
        elif isinstance(event, CommandReceived):
            line = format_command(event.tag, event.command, utf8=utf8)
            assert events([line], utf8=utf8)[:1] == [event]


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
