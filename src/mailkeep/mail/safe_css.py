"""Style sheets and style attributes of a stranger, filtered: what is left can only change how the mail itself looks.

Knows which properties a mail needs to look right, and which values are harmless. Everything is an allow-list: a
property, a function or an at-rule that is not named here is left out. Nothing loads from elsewhere: a URL stays only
when `resolve` knows it as part of the mail.

The hard idea is `sheet`: the rules of a mail must not reach the page around it, so each selector is bound to the
element that the mail is shown in, and what it says of `body` is meant for that element.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, Final

import tinycss2

SHEET_MAX: Final = 256 << 10  # characters of all sheets of a mail
ATTRIBUTE_MAX: Final = 16 << 10  # characters of one style attribute
ATTRIBUTES_MAX: Final = 1 << 20  # characters of all that need the parser: it reads half a million a second
_MEMO_MAX: Final = 500  # characters; the same few attributes come again and again in a newsletter
NESTING_MAX: Final = 30  # brackets in brackets: the parser's output is walked by recursion
_RULES_MAX: Final = 10_000

_SIDE = r"(?:-(?:top|right|bottom|left|block|inline)(?:-(?:start|end))?)?"
PROPERTIES = re.compile(
    r"background(?:-(?:color|image|position(?:-[xy])?|repeat|size|clip|origin))?"
    rf"|border{_SIDE}(?:-(?:color|style|width))?|border-(?:collapse|spacing|radius)"
    r"|border-(?:top|bottom)-(?:left|right)-radius"
    rf"|(?:margin|padding){_SIDE}|(?:min-|max-)?(?:width|height)|box-(?:shadow|sizing|decoration-break)|outline(?:-\w+)?"
    r"|font(?:-(?:family|size|style|variant|weight|stretch|kerning|feature-settings|size-adjust))?"
    r"|color|line-height|letter-spacing|word-(?:break|spacing|wrap)|overflow(?:-(?:x|y|wrap))?|hyphens|tab-size|quotes"
    r"|text-(?:align(?:-last)?|decoration(?:-\w+)?|indent|transform|shadow|overflow|justify|size-adjust|underline-offset)"
    r"|(?:-webkit-|-ms-|-moz-)text-size-adjust|white-space|vertical-align|direction|unicode-bidi|writing-mode"
    r"|display|float|clear|visibility|opacity|list-style(?:-(?:type|position|image))?"
    r"|table-layout|caption-side|empty-cells|object-(?:fit|position)|aspect-ratio"
    r"|flex(?:-(?:basis|direction|flow|grow|shrink|wrap))?|(?:align|justify|place)-(?:content|items|self)|order"
    r"|(?:row-|column-)?gap|columns?(?:-(?:count|width|rule(?:-(?:color|style|width))?|span|fill))?"
    r"|grid(?:-(?:area|template(?:-(?:areas|columns|rows))?|auto-(?:columns|flow|rows)|column|row)(?:-(?:start|end|gap))?)?"
    r"|(?:page-)?break-(?:before|after|inside)|orphans|widows",
    re.IGNORECASE | re.ASCII,
)
# What a mail may say of the element that it is shown in: that one keeps the mail from painting over the page around it.
_LOOK = re.compile(
    r"(?:background|border|color|direction|font|letter-spacing|line-height|padding|text|white-space|word)[\w-]*"
)
_FUNCTIONS: Final = frozenset((
    "rgb", "rgba", "hsl", "hsla", "hwb", "lab", "lch", "oklab", "oklch", "color-mix", "calc", "min", "max", "clamp",
    "linear-gradient", "radial-gradient", "conic-gradient", "repeating-linear-gradient", "repeating-radial-gradient",
    "repeat", "minmax", "fit-content",
))  # fmt: skip
_PSEUDO_FUNCTIONS: Final = frozenset(
    ("not", "is", "where", "nth-child", "nth-last-child", "nth-of-type", "lang", "dir")
)
_NEGATIVE_MARGIN = re.compile(r"(?:^|[\s(,+*/-])-[\d.]")
# A style attribute in which each ";" ends a declaration and nothing needs a parser: the greater part of all.
_SIMPLE = re.compile(
    r"(?:\b(?:rgba?|hsla?)\([\d\s,.%]*\)|'[\w\s.,-]*'|\"[\w\s.,-]*\"|[\w\s:;#%.,!-])*+", re.ASCII | re.IGNORECASE
)

Resolve = Callable[[str], str | None]
_Nodes = Iterable[Any]  # tinycss2 has no types


class Styles:
    """Filters the style sheets and attributes of one mail, and counts what was left out as foreign."""

    def __init__(self, resolve: Resolve, *, scope: str) -> None:
        self.resolve = resolve
        self.scope = scope
        self.blocked = 0
        self.room = SHEET_MAX
        self.attribute_room = ATTRIBUTES_MAX
        self.rules = 0

    # -- declarations

    def attribute(self, style: str) -> str:
        """A style attribute's declarations that may stay; "" when none may."""
        if len(style) > ATTRIBUTE_MAX:
            return ""
        if _SIMPLE.fullmatch(style):
            return _known_simple(style) if len(style) <= _MEMO_MAX else _simple(style)
        if len(style) <= _MEMO_MAX and "\\" not in style and "url" not in style.lower():
            return _known_attribute(style)
        return self.parsed_attribute(style)

    def parsed_attribute(self, style: str) -> str:
        if len(style) > self.attribute_room or _too_deep(style):
            return ""
        self.attribute_room -= len(style)
        return self.declarations(tinycss2.parse_blocks_contents(style, skip_comments=True, skip_whitespace=True))

    def declarations(self, nodes: _Nodes) -> str:
        kept: list[str] = []
        for node in nodes:
            if node.type != "declaration" or not PROPERTIES.fullmatch(node.lower_name):
                continue
            value = self.value(node.value)
            if value is None or not value.strip() or _escapes(node.lower_name, value):
                continue
            kept.append(f"{node.lower_name}:{value.strip()}{' !important' if node.important else ''}")
        return ";".join(kept)

    def value(self, nodes: _Nodes) -> str | None:
        """A value as text; None when something in it is not allowed. Foreign URLs are left out of it."""
        out: list[str] = []
        for node in nodes:
            kind = node.type
            if kind in ("ident", "number", "percentage", "dimension", "hash", "string", "unicode-range"):
                out.append(node.serialize())
            elif kind in ("whitespace", "comment"):
                out.append(" ")
            elif kind == "literal" and node.value in (",", "/", "+", "-", "*"):
                out.append(node.value)
            elif kind == "url" or (kind == "function" and node.lower_name == "url"):
                out.append(self.url(_url_of(node)))
            elif kind == "function" and node.lower_name in _FUNCTIONS:
                inner = self.value(node.arguments)
                if inner is None:
                    return None
                out.append(f"{node.lower_name}({inner})")
            else:
                return None
        return "".join(out)

    def url(self, target: str) -> str:
        found = self.resolve(target)
        if found is None:
            self.blocked += 1
            return ""
        quoted = re.sub(r'[\\"\n\r\f<>]', lambda match: f"\\{ord(match[0]):x} ", found)
        return f'url("{quoted}")'

    # -- sheets

    def sheet(self, css: str) -> str:
        """A style sheet's rules that may stay, each bound to the scope. Can stand inside a style element."""
        if len(css) > self.room or _too_deep(css):
            return ""
        self.room -= len(css)
        rules = tinycss2.parse_stylesheet(css, skip_comments=True, skip_whitespace=True)
        # "<" could end the element; in CSS it means nothing outside strings.
        return self.filtered(rules, 0).replace("<", "\\3c ")

    def filtered(self, rules: _Nodes, depth: int) -> str:
        kept: list[str] = []
        for rule in rules:
            self.rules += 1
            if self.rules > _RULES_MAX:
                break
            if rule.type == "qualified-rule":
                kept += self.bound(rule)
            elif rule.type == "at-rule":
                kept.append(self.at_rule(rule, depth))
        return "\n".join([piece for piece in kept if piece])

    def bound(self, rule: Any) -> Iterator[str]:
        """A rule for what it selects in the mail, and one for the element that the mail is shown in."""
        selectors = _scoped(rule.prelude, self.scope)
        whole = f".{self.scope}"
        inner = ",".join([selector for selector in selectors if selector != whole])
        nodes = tinycss2.parse_blocks_contents(rule.content, skip_comments=True, skip_whitespace=True)
        if inner and (body := self.declarations(nodes)):
            yield f"{inner}{{{body}}}"
        looks = [node for node in nodes if node.type == "declaration" and _LOOK.fullmatch(node.lower_name)]
        if whole in selectors and (body := self.declarations(looks)):
            yield f"{whole}{{{body}}}"

    def at_rule(self, rule: Any, depth: int) -> str:
        if rule.lower_at_keyword in ("import", "font-face"):
            self.blocked += 1
        if rule.lower_at_keyword != "media" or rule.content is None or depth >= 3:
            return ""
        query = _media_query(rule.prelude)
        if query is None:
            return ""
        inner = tinycss2.parse_rule_list(rule.content, skip_comments=True, skip_whitespace=True)
        body = self.filtered(inner, depth + 1)
        return f"@media {query}{{{body}}}" if body else ""


def _escapes(name: str, value: str) -> bool:
    """Whether a box could leave its place, over the page around the mail."""
    return name.startswith("margin") and _NEGATIVE_MARGIN.search(value) is not None


def _simple(style: str) -> str:
    kept: list[str] = []
    for declaration in style.split(";"):
        name, colon, value = declaration.partition(":")
        name, value = name.strip().lower(), value.strip()
        if not colon or not value or ":" in value or not PROPERTIES.fullmatch(name) or _escapes(name, value):
            continue
        if "!" in value and not re.fullmatch(r"[^!]*[^!\s]\s*!\s*important", value, re.IGNORECASE):
            continue
        kept.append(f"{name}:{value}")
    return ";".join(kept)


_known_simple = lru_cache(maxsize=4096)(_simple)


@lru_cache(maxsize=4096)
def _known_attribute(style: str) -> str:
    return Styles(lambda _: None, scope="").parsed_attribute(style)


_BRACKET = re.compile(r"[(\[{]|([)\]}])")


def _too_deep(css: str) -> bool:
    depth = 0
    for match in _BRACKET.finditer(css):
        depth += -1 if match[1] and depth else 1
        if depth > NESTING_MAX:
            return True
    return False


def _url_of(node: Any) -> str:
    if node.type == "url":
        return str(node.value)
    return next((str(inner.value) for inner in node.arguments if inner.type == "string"), "")


def _media_query(prelude: _Nodes) -> str | None:
    """A media query list of plain words, numbers and parentheses; None for anything else."""
    out: list[str] = []
    for node in prelude:
        if node.type in ("ident", "number", "dimension", "percentage"):
            out.append(node.serialize())
        elif node.type in ("whitespace", "comment"):
            out.append(" ")
        elif node.type == "literal" and node.value in (",", ":", "/"):
            out.append(node.value)
        elif node.type == "() block":
            inner = _media_query(node.content)
            if inner is None:
                return None
            out.append(f"({inner})")
        else:
            return None
    return "".join(out).strip()


def _scoped(prelude: list[Any], scope: str) -> list[str]:
    """The selectors of a rule, each bound to the scope; those that cannot be are left out."""
    groups: list[list[Any]] = [[]]
    for node in prelude:
        if node.type == "literal" and node.value == ",":
            groups.append([])
        else:
            groups[-1].append(node)
    return [bound for group in groups if (bound := _bound(group, scope)) is not None]


def _bound(nodes: list[Any], scope: str) -> str | None:
    """One selector, its `html` and `body` replaced by the element that stands for them."""
    while nodes and nodes[0].type in ("whitespace", "comment"):
        nodes = nodes[1:]
    written = _selector(nodes, scope)
    if not written or written[0] in ">+~":  # what stands beside the scope is not the mail's
        return None
    # html → the scope, body → what stands for it; ":root" as html
    match = re.match(r"(?i)(?:(?:html|:root)(?![\w-])([^\s>+~]*)\s*>?\s*)?(?:body(?![\w-])([^\s>+~]*))?", written)
    assert match is not None
    rest = written[match.end() :]
    if match[2] is not None:
        return f".{scope} .mk-body{match[2]}{rest}"
    if match[0]:
        return f".{scope} .mk-body {rest.lstrip()}" if rest.strip() else f".{scope}"
    return f".{scope} {written}"


def _selector(nodes: list[Any], scope: str) -> str | None:
    out: list[str] = []
    for node in nodes:
        if node.type == "ident":
            out.append(node.serialize())
        elif node.type == "hash":
            out.append("#" + f"{scope}-" + node.serialize()[1:])  # ids get the same prefix
        elif node.type == "literal" and node.value in (".", ">", "+", "~", "*", ":"):
            out.append(node.value)
        elif node.type in ("whitespace", "comment"):
            out.append(" ")
        elif node.type == "[] block":
            out.append(node.serialize())
        elif node.type in ("dimension", "number", "percentage"):
            out.append(node.serialize())  # in nth-child()
        elif node.type == "function" and node.lower_name in _PSEUDO_FUNCTIONS:
            inner = _selector(node.arguments, scope)
            if inner is None:
                return None
            out.append(f"{node.lower_name}({inner})")
        else:
            return None
    return "".join(out).strip()
