"""Compare two servers' ENVELOPE, BODY or BODYSTRUCTURE answers, whatever way each chose to write its strings.

A quoted string equals a literal of the same bytes, and atoms compare without case. Used with a stranger's answers
taken over IMAP; knows nothing of either server.
"""

import re

Node = bytes | str | None | list["Node"]

_TOKEN = re.compile(rb'\s*(?:(\()|(\))|"((?:[^"\\]|\\.)*)"|\{(\d+)\}\r\n|([^\s()"{]+))', re.DOTALL)
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)


def parse(data: bytes) -> Node:
    """A parenthesised answer as nested lists: strings as bytes, NIL as None, other atoms as upper-case text."""
    stack: list[list[Node]] = [[]]
    pos = 0
    while pos < len(data):
        match = _TOKEN.match(data, pos)
        if match is None:
            raise ValueError(f"not an IMAP structure at offset {pos}: {data[pos : pos + 40]!r}")
        pos = match.end()
        opened, closed, quoted, size, atom = match.groups()
        if opened:
            stack.append([])
        elif closed:
            done = stack.pop()
            stack[-1].append(done)
        elif quoted is not None:
            stack[-1].append(_ESCAPE.sub(rb"\1", quoted))
        elif size is not None:
            stack[-1].append(data[pos : pos + int(size)])
            pos += int(size)
        else:
            text = atom.decode("ascii").upper()
            stack[-1].append(None if text == "NIL" else text)
    if len(stack) != 1 or len(stack[0]) != 1:
        raise ValueError("unbalanced IMAP structure")
    return stack[0][0]


def _differences(ours: Node, theirs: Node, path: str) -> list[str]:
    if isinstance(ours, list) and isinstance(theirs, list):
        found = [
            difference
            for number, (one, other) in enumerate(zip(ours, theirs, strict=False))
            for difference in _differences(one, other, f"{path}.{number}")
        ]
        if len(ours) != len(theirs):
            found.append(f"{path}: {len(ours)} items against {len(theirs)}")
        return found
    return [] if ours == theirs else [f"{path}: {ours!r} against {theirs!r}"]


def compare_structures(ours: bytes, theirs: bytes) -> list[str]:
    """The differences between two answers, one line each; none when they say the same."""
    return _differences(parse(ours), parse(theirs), "")
