"""How a command ends: the tagged reply, and the one table that turns errors into response codes (RFC 5530).

Knows nothing of sessions. Texts of errors are safe to show by the rule of `errors`.
"""

from dataclasses import dataclass

from mailkeep import errors
from mailkeep.errors import MailkeepError


@dataclass(frozen=True, slots=True)
class Reply:
    """The end of a command: `status` and `text` of the tagged line, `code` without its brackets."""

    status: bytes
    text: bytes
    code: bytes = b""

    def line(self, tag: bytes) -> bytes:
        """The tagged response."""
        if self.code:
            return b"%b %b [%b] %b\r\n" % (tag, self.status, self.code, self.text)
        return b"%b %b %b\r\n" % (tag, self.status, self.text)


def ok(text: bytes, code: bytes = b"") -> Reply:
    """The command did what it was asked."""
    return Reply(b"OK", text, code)


def no(text: bytes, code: bytes = b"") -> Reply:
    """The command was understood and could not be done."""
    return Reply(b"NO", text, code)


def bad(text: bytes, code: bytes = b"") -> Reply:
    """The command was not understood, or does not fit the state."""
    return Reply(b"BAD", text, code)


# The most special class first: the first one that fits decides.
_CODES: tuple[tuple[type[MailkeepError], bytes], ...] = (
    (errors.PeerLimitError, b"LIMIT"),
    (errors.BadCredentials, b"AUTHENTICATIONFAILED"),
    (errors.LoginThrottled, b"UNAVAILABLE"),
    (errors.TlsRequired, b"PRIVACYREQUIRED"),
    (errors.AccountMissing, b"UNAVAILABLE"),
    (errors.MailboxMissing, b"NONEXISTENT"),
    (errors.MailboxExists, b"ALREADYEXISTS"),
    (errors.MessageMissing, b"EXPUNGEISSUED"),
    (errors.AccountReadOnly, b"NOPERM"),
    (errors.NotAllowed, b"CANNOT"),
    (errors.OverQuota, b"OVERQUOTA"),
    (errors.LimitReached, b"LIMIT"),
    (errors.StoreBusy, b"INUSE"),
    (errors.StoreFull, b"UNAVAILABLE"),
    (errors.StoreReadOnly, b"UNAVAILABLE"),
    (errors.StoreCorrupt, b"CORRUPTION"),
)


def from_error(error: MailkeepError) -> Reply:
    """The reply for an error of the family: BAD for broken grammar, else NO with a response code."""
    text = error.text.replace("\r", " ").replace("\n", " ").encode("ascii", "replace") or b"Failed"
    for kind, code in _CODES:
        if isinstance(error, kind):
            return no(text, code)
    if isinstance(error, errors.ProtocolError):
        return bad(text)
    return no(text, b"UNAVAILABLE" if error.temporary else b"SERVERBUG")
