"""How mbsync and offlineimap are told to keep a Maildir beside an account: for tests, and to measure against."""

from typing import Any

_MBSYNC = """
IMAPAccount server
Host {host}
Port {port}
User {user}
Pass {password}
SSLType None
AuthMechs LOGIN
Timeout 60

IMAPStore far
Account server

MaildirStore near
Path {root}/mail/
Inbox {root}/mail/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
SyncState {root}/state/
"""

_OFFLINEIMAP = """
[general]
accounts = one
metadata = {root}/meta
ui = {ui}
{general}
[Account one]
localrepository = local
remoterepository = remote

[Repository local]
type = Maildir
localfolders = {root}/mail
sep = /

[Repository remote]
type = IMAP
remotehost = {host}
remoteport = {port}
remoteuser = {user}
remotepass = {password}
ssl = no
starttls = no
auth_mechanisms = LOGIN
"""


def mbsync(*channel: str, **place: Any) -> str:
    """Its configuration. `place`: host, port, user, password, root; `channel`: lines of the channel."""
    return _MBSYNC.format(**place) + "\n".join(channel) + "\n"


def offlineimap(*remote: str, ui: str, general: str = "", **place: Any) -> str:
    """Its configuration. `place` as above; `remote`: lines on the server."""
    return _OFFLINEIMAP.format(ui=ui, general=general, **place) + "\n".join(remote) + "\n"
