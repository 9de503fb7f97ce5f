"""The one family of errors.

Every error that crosses a module's border is one of these; foreign exceptions are translated once, where they
arise. Each class says whether trying again may help (`temporary`), and carries a text that is safe to show to the
peer: no path, no password, no other user's data. Each door maps classes to its own codes in one table.

    MailkeepError
    ├─ ProtocolError            the peer broke the grammar
    │  └─ PeerLimitError        … or a limit (line, literal, nesting)
    ├─ LoginError
    │  ├─ BadCredentials
    │  ├─ LoginThrottled        temporary: too many failures, or too many sessions
    │  └─ TlsRequired           no password over an open line
    ├─ StoreError
    │  ├─ AccountMissing / AccountExists
    │  ├─ MailboxMissing / MailboxExists
    │  ├─ MessageMissing        the bytes or the row are gone (expunged and collected)
    │  ├─ NotAllowed            e.g. delete INBOX, write to a read-only mailbox, a bad name
    │  │  └─ AccountReadOnly    clients may only read this account
    │  ├─ OverQuota
    │  ├─ LimitReached          message, mailbox count, keyword count
    │  ├─ StoreBusy             temporary: another process holds the write lock
    │  ├─ StoreFull             temporary: no space left
    │  ├─ StoreReadOnly         temporary: read-only file system, or no permission
    │  └─ StoreCorrupt          a checksum or a reference does not hold: run `mailkeep verify`
    ├─ ConfigError
    ├─ UsageError
    ├─ CannotWrite              a file of an export cannot be written: disk full, no permission
    ├─ ToolMissing              another program, or a library of the system, is not installed
    ├─ Unreachable              temporary: host, port or socket cannot be had, or the line was cut
    └─ RemoteError              another server said no
       ├─ RemoteBusy            temporary: … for now; it may say for how long
       └─ Untrusted             its certificate, or its TLS, does not hold
"""


class MailkeepError(Exception):
    """Root of the family. `text` is safe to show; `temporary` says whether trying again may help."""

    temporary = False

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class ProtocolError(MailkeepError):
    """The peer sent what the grammar does not allow."""


class PeerLimitError(ProtocolError):
    """The peer sent more than a limit allows."""


class LoginError(MailkeepError):
    """A log-in did not succeed."""


class BadCredentials(LoginError):
    """Unknown user or wrong password; never told apart."""


class LoginThrottled(LoginError):
    """Too many failures or sessions from this address or for this user."""

    temporary = True


class TlsRequired(LoginError):
    """A password is not accepted over an open line."""


class StoreError(MailkeepError):
    """The store refused or failed."""


class AccountMissing(StoreError):
    """No such account."""


class AccountExists(StoreError):
    """An account of that name is there already."""


class MailboxMissing(StoreError):
    """No such mailbox."""


class MailboxExists(StoreError):
    """A mailbox of that name is there already."""


class MessageMissing(StoreError):
    """The message is gone."""


class NotAllowed(StoreError):
    """The store's rules forbid it."""


class AccountReadOnly(NotAllowed):
    """Clients may read the account, not change it."""

    def __init__(self, text: str = "The account may only be read") -> None:
        super().__init__(text)


class OverQuota(StoreError):
    """The account has no room for it."""


class LimitReached(StoreError):
    """A fixed limit of the store."""


class StoreBusy(StoreError):
    """Another process holds the write lock for too long."""

    temporary = True


class StoreFull(StoreError):
    """No space left on the device, or a quota of the file system."""

    temporary = True


class StoreReadOnly(StoreError):
    """The file system is read-only, or permissions forbid writing."""

    temporary = True


class StoreCorrupt(StoreError):
    """A checksum or a reference does not hold."""


class ConfigError(MailkeepError):
    """The configuration cannot be used."""


class CannotWrite(MailkeepError):
    """A file outside the store cannot be written: no space, no permission, a name that the file system refuses."""

    temporary = True


class ToolMissing(MailkeepError):
    """Another program or a library of the system is needed and not there; the text says how to install it."""


class UsageError(MailkeepError):
    """The command was called wrongly."""


class Unreachable(MailkeepError):
    """A host, port or socket cannot be had."""

    temporary = True


class RemoteError(MailkeepError):
    """Another server refused what we asked of it. `code` is its response code, such as OVERQUOTA (RFC 5530)."""

    def __init__(self, text: str, *, code: str | None = None) -> None:
        super().__init__(text)
        self.code = code


class RemoteBusy(RemoteError):
    """Another server asks to come again later: throttled, overloaded, too many connections."""

    temporary = True

    def __init__(self, text: str, *, retry_after_s: float | None = None, code: str | None = None) -> None:
        super().__init__(text, code=code)
        self.retry_after_s = retry_after_s


class Untrusted(RemoteError):
    """Another server's certificate does not hold, or it cannot speak TLS: nothing was sent to it."""
