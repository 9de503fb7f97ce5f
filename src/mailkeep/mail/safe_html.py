"""HTML of a stranger made safe to show: nothing in it runs, loads from elsewhere or leaves its place.

Elements and attributes go through nh3 with allow-lists, styles through `safe_css`. What is left looks as the sender
meant it: tables, fonts, colours, style sheets with media queries, and the pictures that came with the mail. A picture
from elsewhere is replaced by its description, and counted. Knows nothing of letters or pages.

The hard idea is that nh3 keeps what stands inside the body only, while a mail's looks hang on its style sheets and on
the attributes of the body itself. Those are read from a tree of another parser, filtered on their own, and bound to two
`div`s around the fragment, one for the mail and one for its body.
"""

import html as markup
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import nh3
from selectolax.lexbor import LexborHTMLParser, LexborNode

from mailkeep.mail.direction import first_strong
from mailkeep.mail.html_limits import is_hostile, tame
from mailkeep.mail.safe_css import Styles
from mailkeep.mail.text import html_text

HTML_MAX: Final = 8 << 20  # characters
DEPTH_MAX: Final = 400  # open elements: a long thread of replies opens three or four a reply

Resolve = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class SafeHtml:
    """A fragment to put into a page. `blocked`: how many things from elsewhere were left out."""

    html: str
    blocked: int
    text_direction: str  # "ltr", "rtl" or "auto"
    as_text: bool = False  # it could not be parsed within limits: only its text is shown


def sanitise(html: str, *, resolve: Resolve, scope: str = "mk-mail") -> SafeHtml:
    """The HTML of a mail as a safe fragment, in a `div` of the classes `mk-mail` and `scope`.

    Its style sheets are bound to `scope`, and its ids get that as their prefix, so that several mails fit on a page.

    `resolve` gives the URL of a thing that comes with the mail (by "cid:…" or its location), None for all others.
    Linear time, never raises.
    """
    html = tame(html[:HTML_MAX])
    if is_hostile(html, depth_max=DEPTH_MAX):
        text = markup.escape(html_text(html).strip(), quote=False)
        return SafeHtml(f'<div class="{_classes(scope)}"><pre dir="auto">{text}</pre></div>', 0, "auto", as_text=True)
    return _Cleaner(resolve, scope).clean(html)


def _classes(scope: str) -> str:
    return scope if scope == "mk-mail" else f"mk-mail {scope}"


# ---- what may stay


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_TAGS: Final = _words(
    "a abbr acronym address article aside b bdi bdo big blockquote br caption center cite code col colgroup dd del "
    "details dfn dir div dl dt em fieldset figcaption figure font footer h1 h2 h3 h4 h5 h6 header hr i img ins kbd "
    "label legend li main mark menu nav nobr ol p pre q rp rt ruby s samp section small span strike strong sub "
    "summary sup table tbody td tfoot th thead time tr tt u ul var wbr"
)
# Their contents go with them: they are no text, or text only for a reader that does not run scripts.
_WITH_CONTENT: Final = _words(
    "script style template title noscript iframe object applet svg math select textarea noembed noframes xmp audio "
    "video canvas datalist frameset"
)
_EVERYWHERE: Final = _words("style class id dir lang title align valign bgcolor background width height")
_ATTRIBUTES: Final[dict[str, frozenset[str]]] = {
    "*": _EVERYWHERE,
    "a": frozenset(("href", "name")),
    "img": frozenset(("src", "alt", "border", "hspace", "vspace")),
    "table": _words("border cellpadding cellspacing bordercolor rules frame summary"),
    "td": _words("colspan rowspan nowrap abbr headers scope bordercolor"),
    "th": _words("colspan rowspan nowrap abbr headers scope bordercolor"),
    "tr": frozenset(("bordercolor",)),
    "col": frozenset(("span",)),
    "colgroup": frozenset(("span",)),
    "font": frozenset(("color", "face", "size")),
    "hr": frozenset(("size", "color", "noshade")),
    "br": frozenset(("clear",)),
    "ol": frozenset(("start", "type", "reversed")),
    "ul": frozenset(("type",)),
    "li": frozenset(("type", "value")),
    "details": frozenset(("open",)),
    "time": frozenset(("datetime",)),
}
# Schemes of links, and those by which parts of a mail are referred to. What becomes of them is decided by `_Cleaner`.
_SCHEMES: Final = _words("http https mailto tel cid mid data file thismessage mhtml outbind about")
# Raster pictures only: SVG is a document that can hold scripts and loads.
_DATA_IMAGE = re.compile(
    r"data:image/(?:png|p?jpe?g|gif|webp|bmp|avif|x-icon)(?:;[\w=.-]{1,40})?;base64,", re.IGNORECASE
)
_NOT_IN_URL = re.compile(r"[\t\n\r]+")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)
_COLOUR = re.compile(r"#?[0-9a-zA-Z]{1,30}")
_LENGTH = re.compile(r"\s*(\d{1,4})\s*(?:px)?\s*")

# nh3 writes attributes as name="value" with `"` in the value as &quot;.
_IMG = re.compile(r'<img((?: [^\s="<>/]+="[^"]*")*)>')
_WRITTEN_ATTRIBUTE = re.compile(r' ([^\s="<>/]+)="([^"]*)"')
_TAG = re.compile(r"<[^>]*>|&[#\w]{1,10};")
_DIRECTION_SOUGHT: Final = 20_000  # characters of the fragment
_LOOKS = re.compile(r"(?:^|(?<=;))(?:color|font[\w-]*|letter-spacing):[^;&]*")  # of a picture's description
_BLOCKED: Final = "mk-blocked:"

# Elements that would load something, though nothing is left of them.
_LOADERS: Final = "link[href], iframe[src], frame[src], object[data], embed[src], video[src], audio[src], source[src]"


class _Cleaner:
    """One mail's way through the filters."""

    def __init__(self, resolve: Resolve, scope: str) -> None:
        self.resolve = resolve
        self.scope = scope
        self.blocked = 0
        self.styles = Styles(self.resource, scope=scope)

    def clean(self, html: str) -> SafeHtml:
        tree = LexborHTMLParser(html)
        sheets = (
            [self.styles.sheet(node.text(deep=True)) for node in tree.css("style")] if "<style" in html.lower() else []
        )
        root, body = tree.root, tree.body
        direction = next((found for node in (body, root) if (found := _direction(node))), None)
        opening, about_links = self.body(body)
        self.blocked += sum(1 for node in tree.css(_LOADERS) if _is_foreign(node))
        fragment = nh3.clean(
            html,
            tags=set(_TAGS),
            clean_content_tags=set(_WITH_CONTENT),
            attributes={tag: set(names) for tag, names in _ATTRIBUTES.items()},
            attribute_filter=self.attribute,
            url_schemes=set(_SCHEMES),
            link_rel="noreferrer noopener",
        )
        if _BLOCKED in fragment:
            fragment = _IMG.sub(_placeholder, fragment)
        direction = direction or first_strong(_TAG.sub(" ", fragment[:_DIRECTION_SOUGHT])) or "auto"
        css = "\n".join(filter(None, [about_links, *sheets]))
        head = f"<style>{css}</style>" if css else ""
        whole = f'<div class="{_classes(self.scope)}" dir="{direction}">{head}{opening}{fragment}</div></div>'
        return SafeHtml(whole, self.blocked + self.styles.blocked, direction)

    def body(self, node: LexborNode | None) -> tuple[str, str]:
        """The `div` that stands for the body element, and the sheet for the colours of its links."""
        given = {} if node is None else {name: value or "" for name, value in node.attributes.items()}
        styles: list[str] = []
        if _COLOUR.fullmatch(given.get("bgcolor", "")):
            styles.append(f"background-color:{given['bgcolor']}")
        if _COLOUR.fullmatch(given.get("text", "")):
            styles.append(f"color:{given['text']}")
        if given.get("background") and (image := self.styles.url(given["background"])):
            styles.append(f"background-image:{image}")
        if given.get("style") and (kept := self.styles.attribute(given["style"])):
            styles.append(kept)
        classes = ["mk-body", *_own_classes(given.get("class", "")).split()]
        out = [f'<div class="{markup.escape(" ".join(classes))}"']
        if given.get("id"):
            out.append(f' id="{markup.escape(self.own_id(given["id"]))}"')
        if styles:
            out.append(f' style="{markup.escape(";".join(styles))}"')
        link = given.get("link", "")
        about_links = f".{self.scope} a{{color:{link}}}" if _COLOUR.fullmatch(link) else ""
        return "".join(out) + ">", about_links

    def attribute(self, tag: str, name: str, value: str) -> str | None:
        """nh3's question about each attribute: its new value, None when it goes."""
        if name == "style":
            return self.styles.attribute(value) or None
        if name == "class":
            return _own_classes(value) or None
        if name in ("id", "name", "headers"):
            return self.own_id(value)
        if name == "href":
            return self.link(value)
        if name == "src":
            return self.image(value) if tag == "img" else None
        if name == "background":
            return self.background(value) if value.strip() else None
        return value

    def own_id(self, value: str) -> str:
        return f"{self.scope}-{value.strip()}"

    def link(self, value: str) -> str | None:
        url = _NOT_IN_URL.sub("", value).strip()
        if url.startswith("#"):
            return "#" + self.own_id(url[1:])
        if url.startswith("//"):
            return f"https:{url}"
        scheme = _SCHEME.match(url)
        return url if scheme is not None and scheme[1].lower() in ("http", "https", "mailto", "tel") else None

    def background(self, value: str) -> str | None:
        found = self.resource(value)
        self.blocked += found is None
        return found

    def image(self, value: str) -> str:
        found = self.resource(value)
        if found is not None:
            return found
        if value.strip():
            self.blocked += 1
        return _BLOCKED

    def resource(self, value: str) -> str | None:
        """The URL of something that came with the mail, or that is in the value itself."""
        url = _NOT_IN_URL.sub("", value).strip()
        return url if _DATA_IMAGE.match(url) else self.resolve(url)


def _own_classes(value: str) -> str:
    """A mail's classes without those of the page around it."""
    return (
        " ".join([name for name in value.split() if not name.lower().startswith("mk-")])
        if "mk-" in value.lower()
        else value
    )


def _direction(node: LexborNode | None) -> str | None:
    found = (node.attributes.get("dir") or "").strip().lower() if node is not None else ""
    return found if found in ("ltr", "rtl") else None


def _is_foreign(node: LexborNode) -> bool:
    attributes = node.attributes
    url = attributes.get("href") or attributes.get("src") or attributes.get("data") or ""
    return bool(re.match(r"\s*(?:https?:|//)", url, re.IGNORECASE))


def _placeholder(match: re.Match[str]) -> str:
    """What stands for a picture that is not loaded: its description; else as much room as a spacer takes."""
    given = dict(_WRITTEN_ATTRIBUTE.findall(match[1]))
    if given.get("src") != _BLOCKED:
        return match[0]
    description = given.get("alt", "").strip()
    if description:
        looks = ";".join(_LOOKS.findall(given.get("style", "")))
        style = f' style="{looks}"' if looks else ""
        return f'<span class="mk-picture"{style}>{description.replace("<", "&lt;").replace(">", "&gt;")}</span>'
    width, height = _LENGTH.fullmatch(given.get("width", "")), _LENGTH.fullmatch(given.get("height", ""))
    if width is None or height is None or int(height[1]) > 40 or int(width[1]) <= 1:
        return ""
    return f'<span class="mk-spacer" style="display:inline-block;width:{width[1]}px;height:{height[1]}px"></span>'
