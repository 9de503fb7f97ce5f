"""Hostile mail: HTML that tries every way to load something from elsewhere or to run, as a message and as bare pages.

Each way has its own path on the server, so that a request says which one came through. `{}` is the server's base URL.
"""

import base64

SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="40" height="40">'
    '<image href="{}/svg-image"/><image xlink:href="{}/svg-xlink"/><use href="{}/svg-use#x"/>'
    '<style>@import "{}/svg-import"; rect {{ fill: url({}/svg-fill) }}</style><rect width="9" height="9"/>'
    "<script>new Image().src='{}/svg-script'</script><foreignObject><img src=\"{}/svg-foreign\"/></foreignObject></svg>"
)
# In the head, or where a sender thinks that there is one.
HEAD = """
<base href="{}/base/"><link rel="stylesheet" href="{}/link-stylesheet"><link rel="prefetch" href="{}/prefetch">
<link rel="preload" as="image" href="{}/preload"><link rel="modulepreload" href="{}/modulepreload">
<link rel="dns-prefetch" href="{}/dns"><link rel="icon" href="{}/icon">
<link rel="prerender" href="{}/prerender"><link rel="import" href="{}/import"><link rel="manifest" href="{}/manifest">
<style>@import "{}/css-import-string"; @import url({}/css-import-url);
@font-face {{ font-family: canary; src: url({}/font-face) }}
@namespace url({}/namespace); @media all {{ p {{ background: url({}/css-media) }} }}
@supports (display: block) {{ p {{ background: url({}/css-supports) }} }}
body {{ background: url({}/css-body); font-family: canary }} p::after {{ content: url({}/css-content) }}
li {{ list-style-image: url('{}/css-list') }} div {{ border-image: url("{}/css-border") 1 }}
i {{ cursor: url({}/css-cursor), auto }} b {{ background: image-set("{}/css-image-set" 1x) }}
u {{ background: u\\72l({}/css-escaped) }} s {{ mask: url({}/css-mask); filter: url({}/css-filter#x) }}
em {{ shape-outside: url({}/css-shape); behavior: url({}/css-behavior); -moz-binding: url({}/css-binding) }}
:root {{ --canary: url({}/css-variable) }} strong {{ background: var(--canary) }} p {{ background: attr(title url) }}
</style><style></style><img src="{}/after-style"></style>
<script src="{}/script-src"></script><script type="module">import "{}/script-module"</script>
"""
BODY = """
<p title="{}/css-attr">Hostile<i>i</i><b>b</b><u>u</u><s>s</s><em>e</em><strong>x</strong></p><ul><li>l</ul>
<img src="{}/img"><img srcset="{}/srcset 1x, {}/srcset2 2x">
<img src="x" onerror="this.onerror = null; this.src = '{}/onerror'">
<img src="//{}/img-relative"><img src=" &#x0a;{}/img-space"><img lowsrc="{}/lowsrc" dynsrc="{}/dynsrc" longdesc="{}/l">
<picture><source srcset="{}/picture"><img></picture><input type="image" src="{}/input-image"><image src="{}/image">
<video poster="{}/poster" src="{}/video" autoplay><track src="{}/track"></video><audio src="{}/audio" autoplay></audio>
<iframe srcdoc="<img src='{}/srcdoc'>"></iframe>
<object data="{}/object"><embed src="{}/embed"></object><applet code="{}/applet"></applet><portal src="{}/portal">
<table background="{}/table-background"><tr><td background="{}/td-background" style="background:url({}/td-style)">t
</table>
<div style="background-image:url('{}/style-attribute')">s</div><div style='background:u\\rl("{}/style-escaped")'>s</div>
<div style="background:url(&quot;{}/style-entity&quot;)">s</div><div style="content:url({}/style-content)">s</div>
<div style="list-style:url({}/style-list);display:list-item">s</div><font face="canary" background="{}/font">f</font>
<svg><image href="{}/inline-svg-image"/><image xlink:href="{}/inline-svg-xlink"/><style>@import "{}/inline-svg-css";
</style>
<script>new Image().src="{}/inline-svg-script"</script><use href="{}/inline-svg-use#x"/><a><img src="{}/svg-break">
</a></svg>
<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src={}/mutation&gt;"></math>
<noscript><p title="</noscript><img src='{}/noscript'>"></noscript><form action="{}/form"><button autofocus>b
</button></form>
<form id="f" action="{}/form-action"><input type="submit" formaction="{}/formaction" id="s"></form>
<a href="{}/a" ping="{}/ping">link</a><a href="javascript:fetch('{}/javascript')" id="j">j</a>
<body background="{}/body-background" onload="fetch('{}/onload')"><body style="background:url({}/body-style)">
<details open ontoggle="new Image().src='{}/ontoggle'">d</details><blockquote cite="{}/cite">q</blockquote>
<script>document.title = "run"; document.body.setAttribute("data-run", "1"); new Image().src = "{}/script"</script>
<img src="data:text/html,<script>new Image().src='{}/data-html'</script>"><iframe src="data:text/html;base64,{b64}">
</iframe>
<img src="data:image/svg+xml;base64,{svg64}"><img src="cid:svg@example.org"><object data="cid:svg@example.org"></object>
<embed src="cid:page@example.org"><iframe src="cid:page@example.org"></iframe><img src="cid:page@example.org">
<marquee onstart="new Image().src='{}/marquee'">m</marquee><keygen autofocus onfocus="new Image().src='{}/keygen'">
<!--[if gte mso 9]><img src="{}/conditional"><![endif]--><!--[if !mso]><!--><img src="{}/revealed"><!--<![endif]-->
<xml:namespace prefix="v"><v:fill src="{}/vml"/><v:imagedata src="{}/vml-image"/><o:OLEObject src="{}/ole"/>
<isindex action="{}/isindex"><bgsound src="{}/bgsound"><layer src="{}/layer">
<meta http-equiv="Link" content="<{}/meta-link>; rel=stylesheet"><template><img src="{}/template"></template>
<select><option style="background:url({}/option)">o<img src="{}/select"></select><textarea></textarea>
<img src="{}/textarea">
"""
# What no policy of a page stops, so that only the filter can. (A frame that is forbidden is not loaded, but Chromium
# opens the connection for it before it looks.)
PAST_POLICY = (
    '<iframe src="{}/iframe"></iframe><frameset><frame src="{}/frame"></frameset>'
    '<meta http-equiv="refresh" content="0; url={}/meta-refresh"><link rel="preconnect" href="{}/preconnect">'
    '<meta http-equiv=" ReFresh " content=" 0 ;URL=\'{}/meta-refresh-2\'">'
)


def _fill(text: str, base: str) -> str:
    inner = f"<script>new Image().src='{base}/data-base64'</script><img src='{base}/data-base64-img'>"
    svg = SVG.replace("{}", base).replace("{{", "{").replace("}}", "}")
    text = text.replace("//{}", "//" + base.partition("//")[2]).replace("{}", base)
    text = text.replace("{b64}", _b64(inner.encode())).replace("{svg64}", _b64(svg.encode()))
    return text.replace("{{", "{").replace("}}", "}")


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def document(base: str, *, past_policy: bool = False) -> str:
    """The hostile HTML."""
    return _fill(f"<html><head>{PAST_POLICY if past_policy else ''}{HEAD}</head><body>{BODY}</body></html>", base)


def svg(base: str) -> str:
    return _fill(SVG, base)


def message(base: str, *, past_policy: bool, depth: int = 1) -> bytes:
    """A message whose body is the hostile HTML, with an SVG picture, an HTML part, and itself inside once more."""
    inline = "Content-ID: <{0}@example.org>\r\nContent-Disposition: inline; filename={1}\r\n"
    parts = [
        ("text/html; charset=utf-8", "", document(base, past_policy=past_policy).encode()),
        ("image/svg+xml", inline.format("svg", "a.svg"), svg(base).encode()),
        ("text/html", inline.format("page", "a.html"), document(base).encode()),
        ("image/png", inline.format("false", "b.png"), svg(base).encode()),
    ]
    body = "".join(
        f"--b{depth}\r\nContent-Type: {kind}\r\n{more}Content-Transfer-Encoding: base64\r\n\r\n"
        + base64.encodebytes(data).decode().replace("\n", "\r\n")
        + "\r\n"
        for kind, more, data in parts
    ).encode()
    if depth > 0:
        body += (
            b"--b%d\r\nContent-Type: message/rfc822\r\n\r\n" % depth
            + message(base, past_policy=past_policy, depth=depth - 1)
            + b"\r\n"
        )
    script = f"<script>document.title='run'; new Image().src='{base}/subject'</script><img src={base}/subject-img>"
    head = (
        f"From: =?utf-8?B?{_b64(script[:40].encode())}?= <a@example.org>\r\nTo: {base}/to <b@example.org>\r\n"
        f"Subject: {script}\r\nDate: Tue, 20 Jan 2026 10:00:00 +0000\r\nMIME-Version: 1.0\r\n"
        f'Content-Base: {base}/\r\nContent-Type: multipart/related; boundary="b{depth}"\r\n\r\n'
    )
    return head.encode() + body + b"--b%d--\r\n" % depth


def text_message(base: str) -> bytes:
    """The same as plain text, which must stay text."""
    return (
        b"From: a@example.org\r\nSubject: text\r\nDate: Tue, 20 Jan 2026 10:00:00 +0000\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + document(base).encode().replace(b"\n", b"\r\n")
    )
