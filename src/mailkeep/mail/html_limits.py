"""What keeps the parsers of HTML within linear time: a look at the markup before they see it.

Knows two ways to make every HTML parser slow: elements that are never closed, each of which the parser takes along,
and a tag of very many attributes, each of which is compared with all others. Parses nothing itself.

The hard idea is `tame`: no look from outside can say which "<" a parser will take for a tag, since comments and quotes
hide each other. So every "<" that could start a tag is read as a tag, its surplus attributes are cut off, and the "<"
and ">" inside its values become character references. Whatever state a parser is in when it meets the tag, it is in the
same at the tag's end as this reading was, and so never sees a longer tag than this did.
"""

import re
from typing import Final

DEPTH_MAX: Final = 200  # open elements that a parser may meet
WORK_MAX: Final = 5_000_000  # open elements times tags
ATTRIBUTES_MAX: Final = 200  # of one tag
_SMALL: Final = 20_000  # characters in which no tag has too many

_TAG_NAME = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)")
# Elements without content, or that the next of their kind closes.
_FLAT = frozenset((
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr",
    "p", "li", "dt", "dd", "td", "th", "tr", "option",
))  # fmt: skip


def is_hostile(markup: str, *, depth_max: int = DEPTH_MAX) -> bool:
    """Whether parsing could take more than linear time: open elements times tags is what the parser may build."""
    tags = markup.count("<")
    if tags <= depth_max:
        return False
    opened: dict[str, int] = {}
    depth = deepest = 0
    for match in _TAG_NAME.finditer(markup):
        name = match[2].lower()
        if name in _FLAT:
            continue
        count = opened.get(name, 0)
        if not match[1]:
            opened[name] = count + 1
            depth += 1
            deepest = max(deepest, depth)
        elif count:
            opened[name] = count - 1
            depth -= 1
    return deepest > depth_max or deepest * tags > WORK_MAX


# The tokenizer of HTML (section 13.2.5), from the tag open state on: a name ends at white space, "/" or ">"; so does an
# attribute's name, or at "=", which may stand first; a value is in quotes or ends at white space or ">".
_S = r"[\t\n\f\r ]"
_ATTRIBUTE = rf"""[^\t\n\f\r />][^\t\n\f\r />=]*+(?:{_S}*+={_S}*+(?:"[^"]*+"?|'[^']*+'?|[^\t\n\f\r >]*+))?"""
_TAG = re.compile(rf"</?[a-zA-Z][^\t\n\f\r />]*+(?:[\t\n\f\r /]++|{_ATTRIBUTE})*+>?")
_TAG_HEAD = re.compile(r"</?[a-zA-Z][^\t\n\f\r />]*")
_ATTRIBUTES = re.compile(_ATTRIBUTE)


# What Word writes for itself alone: comments to all others, with hundreds of elements that are never closed in them.
_FOR_WORD = re.compile(r"<!--\[if\b", re.IGNORECASE)
_COMMENT_END = re.compile(r"--!?>")


def tame(markup: str) -> str:
    """The markup without surplus attributes and without Word's comments. What it means is the same. Linear time."""
    markup = _without_comments(markup)
    return markup if len(markup) <= _SMALL else _TAG.sub(_tamed, markup)


def _without_comments(markup: str) -> str:
    """Leave out conditional comments, as all readers but Word do; other comments may be the text of a style sheet."""
    pieces: list[str] = []
    at = 0
    while (begin := _FOR_WORD.search(markup, at)) and (end := _COMMENT_END.search(markup, begin.end())):
        pieces.append(markup[at : begin.start()])
        at = end.end()
    return "".join([*pieces, markup[at:]]) if pieces else markup


def _tamed(match: re.Match[str]) -> str:
    tag = match[0]
    if len(tag) <= 2 * ATTRIBUTES_MAX and "<" not in tag[1:] and ">" not in tag[:-1]:
        return tag
    closed = tag.endswith(">")
    head = _TAG_HEAD.match(tag)
    assert head is not None
    kept: list[str] = []
    for count, attribute in enumerate(_ATTRIBUTES.finditer(tag, head.end(), len(tag) - closed)):
        if count >= ATTRIBUTES_MAX:
            break
        kept.append(attribute[0].replace("<", "&lt;").replace(">", "&gt;"))
    name = head[0][0] + head[0][1:].replace("<", "")
    return f"{name} {' '.join(kept)}{'>' if closed else ''}"
