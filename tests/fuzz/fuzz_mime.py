"""Feed the MIME reader what a coverage-guided fuzzer thinks up: `python -m tests.fuzz.fuzz_mime -runs=100000`.

Anything raised is a bug, and so are offsets that do not tile the bytes and wire bytes that break the IMAP grammar.
"""

import sys

import atheris

with atheris.instrument_imports(include=["mailkeep"]):
    from mailkeep.mail.header import decode_words, header_end, iter_fields, select_fields
    from mailkeep.mail.mime import Part, scan
    from mailkeep.mail.structure import find_section, render
    from mailkeep.mail.text import searchable

from tests import messages
from tests.structure_compare import parse

NAMES = frozenset({b"from", b"subject", b"content-type"})


def check_tiling(part: Part) -> None:
    assert part.start <= part.body <= part.end
    place = part.body
    for child in part.children:
        assert place <= child.start <= child.end <= part.end
        place = child.end
        check_tiling(child)


def one_input(data: bytes) -> None:
    root = scan(data)
    assert (root.start, root.end) == (0, len(data))
    check_tiling(root)
    rendered = render(data)
    for wire in (rendered.envelope, rendered.body, rendered.bodystructure):
        assert wire.isascii()
        parse(wire)
    if rendered.envelope_utf8 is not None:
        parse(rendered.envelope_utf8)
    for path in ((), (1,), (2,), (1, 1), (1, 2, 1)):
        for text in ("", "HEADER", "TEXT", "MIME"):
            span = find_section(rendered.sections, path, text)
            assert span is None or 0 <= span.start <= span.start + span.length <= len(data)
    header = data[: header_end(data)]
    select_fields(header, NAMES)
    select_fields(header, NAMES, exclude=True)
    for _, value in iter_fields(header):
        decode_words(value)
    searchable(data)


def main() -> None:
    for _, message in messages.ugly():
        one_input(message)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
