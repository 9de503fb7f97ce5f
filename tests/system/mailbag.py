"""The mail that the exchanges speak of: few messages, each with something that a question can hit or miss."""

_DEEP = """\
From: "Dora \\"D\\" Deep" <dora@example.net>
To: ann@example.org, "Bob, Junior" <bob@example.org>
Cc: carol@example.org
Subject: nested parts
Date: Wed, 31 Dec 2025 23:30:00 -0500
Message-ID: <deep@example.net>
In-Reply-To: <plain@example.net>
References: <plain@example.net>
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="out"

preamble
--out
Content-Type: multipart/alternative; boundary="in"
Content-Description: the text

--in
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: quoted-printable
X-Part: one

gr=C3=BC=C3=9Fe in the plain part
--in
Content-Type: text/html; charset=utf-8
Content-ID: <html@example.net>

<p>the <b>html</b> part</p>
--in--
--out
Content-Type: application/pdf; name="plan.pdf"
Content-Transfer-Encoding: base64
Content-Disposition: attachment; filename="plan.pdf"; size=12
Content-Language: en
Content-Location: http://example.org/plan.pdf
Content-MD5: Q2hlY2sgSW50ZWdyaXR5IQ==

JVBERi0xLjQK
--out
Content-Type: text/plain

the third part
--out--
epilogue
"""

_FORWARD = """\
From: Eve <eve@example.com>
To: ann@example.org
Subject: Fwd: nested parts
Date: Thu, 1 Jan 2026 00:30:00 +0200
Message-ID: <forward@example.com>
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="f"

--f

see below
--f
Content-Type: message/rfc822
Content-Disposition: attachment

From: frank@example.com
To: eve@example.com
Subject: inner subject
Date: Mon, 29 Dec 2025 12:00:00 +0000
Message-ID: <inner@example.com>
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="g"

--g
Content-Type: text/plain

inner text
--g
Content-Type: message/rfc822

Subject: innermost

the core
--g--
--f--
"""

_SOURCES = {
    "plain": """\
From: Bob <bob@example.net>
To: Ann <ann@example.org>
Subject: Hello world
Date: Tue, 20 Jan 2026 10:00:00 +0000
Message-ID: <plain@example.net>
X-Empty:
X-Twice: first
X-Twice: second

Hi there.
A second line.
""",
    "words": """\
From: =?utf-8?Q?J=C3=B6rg?= <joerg@example.de>
Reply-To: list@example.de
To: undisclosed-recipients:;
Subject: =?utf-8?B?R3LDvMOfZSBhdXMgTcO8bmNoZW4=?=
 =?utf-8?Q?_und_Umgebung?=
Date: Thu, 1 Jan 2026 00:00:00 +0000
Message-ID: <words@example.de>
MIME-Version: 1.0
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: quoted-printable

Sch=F6ne Gr=FC=DFe, and a soft=
 line break.
""",
    "deep": _DEEP,
    "forward": _FORWARD,
    "bare": """\
From: nobody
Subject:
X-Folded: one
\ttwo
   three

no date, no recipient
""",
    "base64": """\
From: hana@example.jp (Hana)
Sender: Secretary <sec@example.jp>
To: Team: ann@example.org, bob@example.org;, carol@example.org
Bcc: hidden@example.org
Subject: 100% "quoted" \\ back*slash
Date: 31 Dec 2025 23:59:59 GMT
Message-ID: <base64@example.jp>
MIME-Version: 1.0
Content-Type: text/html; charset=utf-8
Content-Transfer-Encoding: base64

PHA+44GT44KT44Gr44Gh44GvIDxpPndvcmxkPC9pPjwvcD4K
""",
    "head": """\
From: gus@example.net
To: ann@example.org
Subject: only a header
Date: Fri, 2 Jan 2026 08:00:00 -0800

""",
}

MESSAGES = {name: text.replace("\n", "\r\n").encode() for name, text in _SOURCES.items()}

# name, flags, internal date: what `box` holds, UIDs 1 to 7
BOX = (
    ("plain", "", " 1-Jan-2026 00:00:00 +0000"),
    ("words", r"\Seen", "31-Dec-2025 23:59:59 +0000"),
    ("deep", r"\Flagged $Forwarded", " 1-Jan-2026 00:30:00 +0100"),
    ("forward", r"\Seen \Deleted", "20-Jan-2026 12:00:00 -0800"),
    ("bare", r"\Answered \Draft", "29-Feb-2024 12:00:00 +0000"),
    ("base64", r"\Seen Label custom-1", "31-Dec-2025 20:00:00 -0500"),
    ("head", r"\Seen \Answered \Flagged", " 2-Jan-2026 03:04:05 +1400"),
)
