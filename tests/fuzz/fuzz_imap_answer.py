"""Coverage-guided octets into the client's IMAP codec: answers come, ProtocolErrors at most; cutting changes nothing.

Alone: `python tests/fuzz/fuzz_imap_answer.py -runs=100000`.
"""

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.fuzz.spelling import spelled

with atheris.instrument_imports(include=["mailkeep"]):
    from mailkeep.wire.imap_answer import Fetched, Listed
    from tests.wire.answering import answers

# Octets alone would take for ever to spell an answer: in half of the runs octets stand for words.
WORDS = (
    b"* |1 |4294967296 |FETCH (|UIDFETCH (|UID |FLAGS (|\\Seen|)|(|[|]|BODY[|BODY[] |BODY.PEEK[HEADER] |RFC822 |"
    b'HEADER.FIELDS (|<0> |{0}\r\n|{3}\r\n|{3+}\r\n|~{1}\r\n|{40}\r\n|{99999999999}\r\n|abc|\r\n|\n|\r|"|\\|NIL|'
    b"LIST |LSUB |XLIST |STATUS |SEARCH |ESEARCH (TAG |ALL |COUNT |OK [|NO |BYE |COPYUID 1 1:9 2|"
    b"APPENDUID 1 2|CAPABILITY |"
    b"PERMANENTFLAGS (|MODIFIED |UNSEEN |VANISHED |(EARLIER) |1:9|,|:|*|ID (|NAMESPACE (((|QUOTA |QUOTAROOT |"
    b'EXISTS|EXPUNGE|RECENT|ENABLED |\0STREAMED|\0|\xff|&AOk-|&|-|/|+ |+\r\n|a1 OK |a1 NO [|x|7| |INTERNALDATE "|'
    b'1-Feb-1994 00:00:00 +0000"|RFC822.SIZE |-1|MODSEQ (|ENVELOPE (|BODYSTRUCTURE (|X-GM-LABELS (|X-GM-MSGID |'
    b'EMAILID (|BINARY.SIZE[|"/" |"\\" |("CHILDINFO" (|(OLDNAME (|* 1 FETCH (UID 7 |* LIST () "/" '
).split(b"|")


def one_input(data: bytes) -> None:
    switches, octets = spelled(data, WORDS)
    utf8, cut = bool(switches & 2), 1 + switches // 4
    seen = answers([octets], utf8=utf8, inline_max=30, answer_max=4096)
    pieces = [octets[i : i + cut] for i in range(0, len(octets), cut)]
    assert answers(pieces, utf8=utf8, inline_max=30, answer_max=4096) == seen
    for answer in seen:
        if isinstance(answer, Fetched):
            assert answer.uid is None or 0 < answer.uid < 1 << 32
        elif isinstance(answer, Listed):
            assert isinstance(answer.name, str)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
