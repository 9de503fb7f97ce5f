"""Talking IMAP and POP3 over a real socket to whatever server listens, and telling what an answer means.

Two right servers answer the same question in different words: literals or quoted strings, one FETCH response or two,
EXPUNGE from the end or from the start, texts, numbers of their own choosing (UIDVALIDITY, mod-sequences). `meaning`
takes those liberties away, and nothing else: what it returns for two servers can be compared line by line.

Nothing here comes from the package: a fault of our codec must not be able to hide in the test of our codec.
"""

import re
import socket
from collections.abc import Iterable, Iterator
from typing import Any

Token = Any  # str: atom; bytes: string; None: NIL; list: parenthesised

_LITERAL = re.compile(rb"~?\{(\d+)\}\r\n\Z")
_ATOM = re.compile(rb"(?:[^\s()\"\[\]{]|\[[^\]]*\])+|\]")
_QUOTED = re.compile(rb'"((?:[^"\\]|\\.)*)"')
_SOME_LITERAL = re.compile(rb"~?\{(\d+)\}\r\n")
_CODE = re.compile(rb"(OK|NO|BAD|BYE|PREAUTH)(?: \[((?:[^\]\"]|\"[^\"]*\")*)\])?")
_SET = re.compile(r"[0-9:,*]+")
# Codes that say nothing that a client must act on, or that only one of the servers has any use for.
_IDLE_CODES = {"MAILBOXID", "CAPABILITY", "CLIENTBUG", "READ-WRITE", "HIGHESTMODSEQ", "NOMODSEQ"}
# Why a server says NO is advice (RFC 5530 section 2), but for what a client must act on.
_REFUSALS = {"TRYCREATE", "BADCHARSET", "MODIFIED", "UNKNOWN-CTE"}
_OWN_NUMBERS = {"UIDVALIDITY", "HIGHESTMODSEQ", "MODSEQ"}
_IDLE_ATTRIBUTES = {
    "LIST": {r"\marked", r"\unmarked"},
    "LSUB": {r"\archive", r"\drafts", r"\junk", r"\sent", r"\trash"},
}
# Which keywords a mailbox knows is the server's own, and so is when it tells them; their order below is so, too.
_FLAGS_TOLD = ("* FLAGS", "* OK [PERMANENTFLAGS")


class Wire:
    """One connection that reads whole responses."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def line(self) -> bytes:
        """One line with its CRLF; b"" at the end of the connection."""
        return self._file.readline()

    def response(self) -> bytes:
        """One IMAP response, its literals inside, without the last CRLF; b"" at the end of the connection."""
        data = line = self.line()
        while literal := _LITERAL.search(line):
            data += self._file.read(int(literal[1]))
            line = self.line()
            data += line
        return data.removesuffix(b"\r\n")

    def until(self, *marks: bytes) -> list[bytes]:
        """Responses up to the first that starts with one of the marks, or up to the end of the connection."""
        responses = []
        while response := self.response():
            responses.append(response)
            if response.startswith(marks):
                break
        return responses

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def tokens(data: bytes) -> list[Token]:
    """A response, or the inside of one, as nested lists."""
    stack: list[list[Token]] = [[]]
    at = 0
    while at < len(data):
        octet = data[at : at + 1]
        if octet.isspace():
            at += 1
        elif octet == b"(":
            stack.append([])
            at += 1
        elif octet == b")":
            assert len(stack) > 1, f"one parenthesis too many: {data!r}"
            inner = stack.pop()
            stack[-1].append(inner)
            at += 1
        elif match := _QUOTED.match(data, at):
            stack[-1].append(re.sub(rb"\\(.)", rb"\1", match[1]))
            at = match.end()
        elif match := _SOME_LITERAL.match(data, at):
            at = match.end() + int(match[1])
            stack[-1].append(data[match.end() : at])
        else:
            match = _ATOM.match(data, at)
            assert match, f"no token at {data[at : at + 40]!r} of {data!r}"
            atom = match[0].decode("latin-1")
            stack[-1].append(None if atom.upper() == "NIL" else atom)
            at = match.end()
    assert len(stack) == 1, f"an open parenthesis: {data!r}"
    return stack[0]


def shown(token: Token) -> str:
    """A token as text, the same for all ways to write it."""
    if isinstance(token, list):
        return "(" + " ".join(map(shown, token)) + ")"
    if isinstance(token, bytes):
        return '"' + token.decode("latin-1").encode("unicode_escape").decode() + '"'
    return "NIL" if token is None else token


def numbers(text: str) -> list[int]:
    """The members of a set, in order of size."""
    found: set[int] = set()
    for part in text.split(","):
        low, _, high = part.partition(":")
        ends = sorted((int(low), int(high or low)))
        found.update(range(ends[0], ends[1] + 1))
    return sorted(found)


def _spread(text: str) -> str:
    return ",".join(map(str, numbers(text)))


def _code(text: bytes) -> str:
    """A response code without what is the server's own; "" when nothing is left of it."""
    name, *rest = [token if isinstance(token, list) else shown(token) for token in tokens(text)]
    name = name.upper()
    if name in _IDLE_CODES:
        return ""
    if name in _OWN_NUMBERS:
        rest = ["N"]
    elif name in ("APPENDUID", "COPYUID"):
        rest = ["V", *map(_spread, rest[1:])]
    elif name == "MODIFIED":
        rest = [_spread(rest[0])]
    elif name == "BADCHARSET":
        rest = []
    elif name == "PERMANENTFLAGS":
        rest = [_system(rest[0])]
    return "[" + " ".join([name, *map(shown, rest)]) + "]"


def _system(flags: list[str]) -> list[str]:
    return sorted(flag for flag in flags if flag.startswith("\\"))


def _status(response: bytes) -> str:
    match = _CODE.match(response)
    assert match, response
    code = _code(match[2]) if match[2] else ""
    if match[1] != b"OK" and code.strip("[]").partition(" ")[0] not in _REFUSALS:
        code = ""
    return (match[1].decode() + " " + code).strip()


class Answer:
    """What the responses to one command mean. Feed it responses; `lines` sorts out what they come to."""

    def __init__(self) -> None:
        self._plain: list[str] = []
        self._fetched: dict[int, dict[str, str]] = {}
        self._gone: list[int] = []  # by the numbers that the command began with
        self._counts: dict[str, int] = {}

    def _before(self, number: int) -> int:
        """A sequence number as it was before the EXPUNGEs that have been told meanwhile."""
        for gone in sorted(self._gone):
            number += gone <= number
        return number

    def hear(self, response: bytes, tag: bytes = b"*") -> None:
        if response.startswith(b"+"):
            self._plain.append("+")
        elif not response.startswith(b"* "):
            assert response.startswith(tag + b" "), f"{response!r} answers to no {tag!r}"
            self._plain.append(_status(response[len(tag) + 1 :]))
        elif match := _CODE.match(response, 2):
            told = _status(response[2:])
            if told != "OK" or match[1] != b"OK":
                self._plain.append("* " + told)
        else:
            self._data(tokens(response[2:]))

    def _data(self, data: list[Token]) -> None:
        kind = str(data[1] if data[0].isdigit() else data[0]).upper()
        if kind in ("EXISTS", "RECENT"):
            self._counts[kind] = int(data[0])
        elif kind == "EXPUNGE":
            self._gone.append(self._before(int(data[0])))
        elif kind == "FETCH":
            items = data[2]
            assert len(items) % 2 == 0, data
            row = self._fetched.setdefault(self._before(int(data[0])), {})
            row.update(_item(name, value) for name, value in zip(items[::2], items[1::2], strict=True))
        elif kind != "CAPABILITY" and data != ["ENABLED"]:  # that nothing is new need not be said
            self._plain.append("* " + _untagged(kind, data))

    def lines(self) -> list[str]:
        """One line for each thing told, sorted, for nothing is said by their order."""
        plain = self._plain
        if "* OK [UIDVALIDITY N]" not in plain:
            plain = [line for line in plain if not line.startswith(_FLAGS_TOLD)]
            if "EXISTS" not in self._counts:  # RECENT says nothing new then
                self._counts.pop("RECENT", None)
        told = [*plain, *(f"* {count} {kind}" for kind, count in self._counts.items())]
        for number, row in self._fetched.items():
            told.append(f"* {number} FETCH " + " ".join(f"{name} {value}" for name, value in sorted(row.items())))
        told += [f"* {number} EXPUNGE" for number in self._gone]
        return sorted(told)


def _item(name: str, value: Token) -> tuple[str, str]:
    """One item of a FETCH response."""
    name = re.sub(r'"([^"\\]*)"', r"\1", name).upper()
    if name == "FLAGS":
        value = sorted(value, key=str.lower)
    elif name == "MODSEQ":
        value = ["N"]
    elif name == "SAVEDATE":
        value = "D"
    elif value is None and name.startswith(("BODY[", "BINARY[")):
        value = b""  # a section that is not there
    return name, shown(value)


def _named(name: Token) -> str:
    """A mailbox name, an atom or a string; INBOX in capitals."""
    text = name if isinstance(name, bytes) else (name or "NIL").encode("latin-1")
    return shown(b"INBOX" if text.upper() == b"INBOX" else text)


def _untagged(kind: str, data: list[Token]) -> str:
    if kind == "ID":
        return kind
    if kind in ("LIST", "LSUB"):
        # What does not exist cannot be selected (RFC 5258 section 3), and a client need not know more.
        names = {name.lower().replace("nonexistent", "noselect") for name in data[1]}
        attributes = sorted(names - _IDLE_ATTRIBUTES[kind])
        extended = [shown(token).replace('"', "") for token in data[4:]]
        return " ".join([kind, "(" + " ".join(attributes) + ")", shown(data[2]), _named(data[3]), *extended])
    if kind == "STATUS":
        pairs = sorted(zip(data[2][::2], data[2][1::2], strict=True))
        values = [f"{name.upper()} {'N' if name.upper() in _OWN_NUMBERS else shown(value)}" for name, value in pairs]
        return f"STATUS {_named(data[1])} ({' '.join(values)})"
    if kind == "FLAGS":
        return "FLAGS " + shown(_system(data[1]))
    if kind == "ENABLED":
        return "ENABLED " + " ".join(sorted(data[1:]))
    if kind == "VANISHED":
        earlier = "(EARLIER) " if isinstance(data[1], list) else ""
        return f"VANISHED {earlier}{_spread(data[-1])}"
    if kind == "SEARCH":
        found = sorted(int(token) for token in data[1:] if isinstance(token, str))
        return " ".join(["SEARCH", *map(str, found), *("(MODSEQ N)" for token in data if isinstance(token, list))])
    if kind == "ESEARCH":
        return _esearch([token for token in data[1:] if not isinstance(token, list)])
    return " ".join(map(shown, data))


def _esearch(data: list[str]) -> str:
    uid = ["UID"] if data[:1] == ["UID"] else []
    rest = data[len(uid) :]
    values = [
        f"{name} {'N' if name == 'MODSEQ' else _spread(value)}"
        for name, value in sorted(zip(rest[::2], rest[1::2], strict=True))
    ]
    return " ".join(["ESEARCH", *uid, *values])


def meaning(responses: Iterable[bytes], tag: bytes = b"*") -> list[str]:
    """What the responses to one command come to."""
    answer = Answer()
    for response in responses:
        answer.hear(response, tag)
    return answer.lines()


class Imap:
    """One IMAP client. Tags are its own; `modseq` and `uidvalidity` are the last that it was told."""

    def __init__(self, port: int) -> None:
        self.wire = Wire(port)
        self.greeting = self.wire.response()
        self.modseq = self.uidvalidity = 0
        self._count = 0
        self._idle = b""

    def send(self, commands: Iterable[bytes]) -> list[bytes]:
        """Write commands in one packet; the tags by which their answers will be known."""
        packet, tags = [], []
        for command in commands:
            if command == b"DONE":
                tags.append(self._idle)
                packet.append(b"DONE\r\n")
                continue
            self._count += 1
            tags.append(b"t%d" % self._count)
            packet.append(tags[-1] + b" " + command + b"\r\n")
            if command == b"IDLE":
                self._idle = tags[-1]
        self.wire.send(b"".join(packet))
        return tags

    def answers(self, *commands: bytes) -> Iterator[tuple[bytes, list[bytes]]]:
        """Write commands in one packet; of each the tag and all responses up to its tagged one (IDLE: its `+`).

        Commands in one packet may be answered in any order (RFC 9051 section 5.5), so what is not tagged is given to
        the last of them.
        """
        tags = self.send(commands)
        ends = {tag + b" ": tag for tag in tags}
        if commands[-1] == b"IDLE":
            ends[b"+"] = tags[-1]
        tagged: dict[bytes, bytes] = {}
        others: list[bytes] = []
        while len(tagged) < len(tags):
            *untagged, end = self.wire.until(*ends) or [b""]
            mark = next((mark for mark in ends if end.startswith(mark)), b"")
            assert mark, f"closed after {[*others, *untagged, end]}"
            others += untagged
            tagged[ends[mark]] = end
        self._note([*others, *tagged.values()])
        for tag in tags[:-1]:
            yield tag, [tagged[tag]]
        yield tags[-1], [*others, tagged[tags[-1]]]

    def wait(self, mark: bytes) -> list[bytes]:
        """Responses that come unasked, up to one that has the mark in it."""
        responses: list[bytes] = []
        while not responses or mark not in responses[-1]:
            response = self.wire.response()
            assert response, f"closed while waiting for {mark!r}"
            responses.append(response)
        return responses

    def ask(self, command: bytes) -> list[bytes]:
        """One command that must succeed; its untagged responses."""
        ((tag, responses),) = self.answers(command)
        assert responses and responses[-1].startswith(tag + b" OK"), (command, responses)
        return responses[:-1]

    def _note(self, responses: list[bytes]) -> None:
        for response in responses:
            for value in re.findall(rb"(?:HIGHESTMODSEQ |MODSEQ \(|\(MODSEQ |ESEARCH.* MODSEQ )(\d+)", response):
                self.modseq = max(self.modseq, int(value))
            if found := re.search(rb"\[UIDVALIDITY (\d+)\]", response):
                self.uidvalidity = int(found[1])

    def close(self) -> None:
        self.wire.close()

    def __enter__(self) -> "Imap":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Pop3:
    """One POP3 client that knows which answers have many lines."""

    def __init__(self, port: int) -> None:
        self.wire = Wire(port)
        self.greeting = self.wire.line()

    def answers(self, *commands: bytes) -> Iterator[list[bytes]]:
        """Write commands in one packet; of each its lines, dots unstuffed, without the end mark."""
        self.wire.send(b"".join(command + b"\r\n" for command in commands))
        for command in commands:
            lines = [self.wire.line().removesuffix(b"\r\n")]
            words = command.upper().split()
            verb = words[0] if words else b""
            many = verb in (b"RETR", b"TOP", b"CAPA") or (verb in (b"LIST", b"UIDL") and len(words) == 1)
            if many and lines[0].startswith(b"+OK"):
                while (line := self.wire.line()) != b".\r\n":
                    assert line, f"closed inside the answer to {command!r}"
                    lines.append(line.removesuffix(b"\r\n").removeprefix(b"."))
            yield lines

    def close(self) -> None:
        self.wire.close()

    def __enter__(self) -> "Pop3":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
