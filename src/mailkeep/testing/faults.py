"""The faults that a scripted server can have, each by itself: a frozen value says how it differs from a good one.

Knows no protocol machinery; the sessions look here at each step. A named kind (`kinds.py`) is a set of these values,
and `dataclasses.replace` makes a kind with one fault more or less. The defaults are a server without a fault.

The hard idea is *when*: a fault that always strikes cannot be told from a server that does not work, so what breaks a
connection or refuses a command says how often, and the counts are the server's, over all its connections: the caller
that comes again finds it mended.
"""

from dataclasses import dataclass, field
from typing import Literal

# What the servers offer that have nothing to hide; a kind takes away from it.
FULL = (
    *("IMAP4rev1", "LITERAL+", "SASL-IR", "AUTH=PLAIN", "AUTH=LOGIN", "AUTH=XOAUTH2", "AUTH=OAUTHBEARER"),
    *("ID", "ENABLE", "IDLE", "NAMESPACE", "UIDPLUS", "MOVE", "UNSELECT", "CHILDREN", "SPECIAL-USE"),
    *("CREATE-SPECIAL-USE", "LIST-EXTENDED", "LIST-STATUS", "ESEARCH", "SEARCHRES", "CONDSTORE", "QRESYNC"),
    *("STATUS=SIZE", "UTF8=ACCEPT", "COMPRESS=DEFLATE"),
)


@dataclass(frozen=True, slots=True)
class Ill:
    """A message that cannot be had in the ordinary way, over IMAP or POP3.

    `kind`: nil and empty (the body is NIL, or ""), missing (OK, but no answer for it), no and bad (the command fails),
    hangup and bye (the connection ends), short (the connection ends in the middle of the body), replaced (another
    message stands in for it, as Exchange does).
    `items`: what is hit, of BODY[] (the whole message), RFC822, HEADER, TEXT and PART;
    `times`: so often, then it is well.
    """

    kind: Literal["nil", "empty", "missing", "no", "bad", "hangup", "bye", "short", "replaced"]
    items: frozenset[str] = frozenset(("BODY[]", "RFC822", "HEADER", "TEXT", "PART"))
    times: int | None = None


@dataclass(frozen=True, slots=True)
class Break:
    """A connection ends at a command.

    `at`: a regex that the command matches; `nth`: which of those that match, counted over all connections; `times`:
    for so many from then on (None: for ever).
    `when`: before it is done, after it is done but with the answer lost, or in the middle of the answer.
    `bye`: say `* BYE` (POP3: -ERR) first.
    """

    at: bytes = rb"."
    nth: int = 1
    when: Literal["before", "middle", "after"] = "before"
    bye: bool = False
    times: int | None = 1


@dataclass(frozen=True, slots=True)
class Busy:
    """A command is refused for now: each `every`th of those that match, `times` in all (None: for ever).

    `reply` is the answer without its tag, e.g. `NO [UNAVAILABLE] Try again later`.
    """

    at: bytes = rb"\b(FETCH|SELECT|EXAMINE|SEARCH|STATUS|STORE|COPY|MOVE|APPEND|LIST|RETR)\b"
    every: int = 1
    reply: bytes = b"NO [UNAVAILABLE] Temporarily unavailable, try again later"
    times: int | None = None


@dataclass(frozen=True, slots=True)
class PopFaults:
    """What is odd about a POP3 server.

    `uidl`: unique; repeated (each two messages share one); missing (no command UIDL); empty (lines without an id);
    changing (others at each log-in); long (200 octets with spaces and 8-bit, beyond RFC 1939).
    """

    uidl: Literal["unique", "repeated", "missing", "empty", "changing", "long"] = "unique"
    capa: bool = True
    pipelining: bool = True  # offered; a server that does not loses what is sent ahead
    top: bool = True
    size_error: int = 0  # octets added to what LIST and STAT say
    list_sizes: bool = True  # False: LIST says 0 for each
    dot: bool = True  # False: RETR ends without its closing line
    stuffing: bool = True  # False: lines that begin with a dot are sent as they are
    bare_lf: bool = False  # lines end with LF in RETR
    forgets_deletions: bool = False  # QUIT says +OK and deletes nothing
    stat_error: int = 0  # added to the number of messages in STAT
    login_delay_s: int | None = None  # [LOGIN-DELAY] for a second log-in; so said in CAPA, never measured
    in_use: int = 0  # the first n log-ins are refused with [IN-USE]


@dataclass(frozen=True, slots=True)
class Faults:
    """How a server differs from a good one. All sizes in octets."""

    # --- what it says of itself ---
    capabilities: tuple[str, ...] = FULL
    capabilities_after_login: tuple[str, ...] | None = None  # None: the same
    tells_capabilities: bool = True  # in the greeting and in the answer to the log-in
    greeting: str = "Ready"
    server_id: tuple[tuple[str, str], ...] = (("name", "Faulty"),)

    # --- the line ---
    cut_after_bytes: int | None = None  # of what the server sends on one connection
    cut_times: int | None = None  # connections that are cut so, and by no other rule; None: all
    breaks: tuple[Break, ...] = ()
    busy: tuple[Busy, ...] = ()
    delay_s: float = 0.0  # before each answer
    bytes_per_s: float | None = None  # to the client
    line_max: int = 64 * 1024  # of a command; a longer one ends the session
    line_max_text: str = "BAD Command line too long"
    pipeline_max: int | None = None  # commands that may wait while one is answered; more end the session
    connections_max: int | None = None
    bytes_cap: int | None = None  # of message data in all, over all connections; then [OVERQUOTA] and the end
    junk_lines: tuple[bytes, ...] = ()  # untagged, after each SELECT and NOOP
    bare_ok: bool = False  # `tag OK` without a text
    extra_spaces: bool = False  # in FETCH and LIST answers
    bye_on_idle: bool = False  # IDLE is ended by the server at once

    # --- log-in ---
    login_refused: str | None = None  # every log-in: "[ALERT] Application-specific password required"
    login_unavailable: int = 0  # the first n log-ins: NO [UNAVAILABLE]
    not_connected: int = 0  # the first n sessions: "User is authenticated but not connected" to each command
    password_login: bool = True  # False: LOGIN and AUTH=PLAIN are refused, tokens only

    # --- mailboxes ---
    separator: str = "/"
    prefix: str = ""  # personal namespace
    folder_cap: int | None = None  # only the newest n messages of a mailbox are shown
    uidvalidity_lasts: int | None = None  # SELECTs of one mailbox, until its UIDVALIDITY and all its UIDs are others
    special_use_in_list: bool = True  # without LIST (SPECIAL-USE) being asked for
    unquoted_names: bool = False  # in LIST, whatever is in them
    literal_names: bool = False  # in LIST, as literals
    name_max: int | None = None  # octets on the wire
    name_forbidden: str = ""  # characters
    name_seven_bit: bool = False  # only ASCII names can be made
    depth_max: int | None = None  # levels
    either_mail_or_folders: bool = False  # a mailbox with mail cannot have children (\NoInferiors)
    labels: bool = False  # Gmail: mailboxes are labels of one collection; X-GM-EXT-1

    # --- messages ---
    keywords: bool = True  # may be made
    keywords_max: int | None = None  # different ones in a mailbox
    keyword_length_max: int | None = None
    lost_flags_on_append: frozenset[str] = field(default_factory=frozenset)
    append_max: int | None = None
    append_date_ignored: bool = False
    search_drops: int | None = None  # each nth message is left out of a SEARCH
    size_error: int = 0  # added to RFC822.SIZE
    rfc822: Literal["whole", "empty", "nil", "missing"] = "whole"  # what FETCH RFC822 brings
    peek_sets_seen: bool = False
    bad_dates: bool = False  # INTERNALDATE that is no date-time
    replaces: bytes | None = None  # regex: matching messages are replaced, as with Ill("replaced")
    flags_unsolicited: bool = False  # each FETCH of a body is followed by a FETCH (FLAGS) without UID

    pop: PopFaults = field(default_factory=PopFaults)
