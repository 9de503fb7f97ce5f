"""A real Dovecot on loopback, for comparing with and for measuring against.

It knows how to write a private configuration (imap, pop3, lmtp on free high ports, everything below one temporary
directory), to start it, and to end it by its own pid. It touches nothing of a Dovecot that the machine may already
run. Set up as a careful administrator would set up a fast one: fsync on, auth cache on, info log off, log-in
processes that serve many connections ("high-performance mode"), and a plain-text static password, so that no time is
spent on hashing: every choice that is open is made in Dovecot's favour.

    with Dovecot(format="sdbox") as dovecot:
        imaplib.IMAP4("127.0.0.1", dovecot.imap).login("ann@example.org", dovecot.password)

Any user name logs in; its mailbox is made on first use.
"""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from tests.programs import find_program, free_ports, wait_for_port

Format = Literal["sdbox", "mdbox", "maildir"]

SPECIAL = ("Drafts", "Sent", "Junk", "Trash", "Archive")  # mailboxes that each user has, and their special uses
CONFIG = """
protocols = imap pop3 lmtp
listen = 127.0.0.1
base_dir = {root}/run
state_dir = {root}/run
mail_plugin_dir = /usr/lib/dovecot/modules
log_path = {root}/error.log
info_log_path = /dev/null
debug_log_path = /dev/null
default_internal_user = {internal_user}
default_internal_group = {internal_group}
default_login_user = {login_user}
first_valid_uid = 1
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain login
auth_cache_size = 10 M
auth_cache_ttl = 1 hour
auth_verbose = no
auth_failure_delay = 0
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={root}/mail/%u allow_all_users=yes
}}
mail_location = {format}:~/{format}
mail_fsync = optimized
mail_max_userip_connections = 20000
namespace inbox {{
  inbox = yes
  separator = /
{special}
}}
postmaster_address = postmaster@example.org
lmtp_save_to_detail_mailbox = yes
recipient_delimiter = +
service imap-login {{
  chroot =
  service_count = 0
  process_min_avail = 2
  client_limit = 4000
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service pop3-login {{
  chroot =
  service_count = 0
  process_min_avail = 2
  client_limit = 4000
  inet_listener pop3 {{
    port = {pop3}
  }}
  inet_listener pop3s {{
    port = 0
  }}
}}
service imap {{
  process_limit = 2000
}}
service pop3 {{
  process_limit = 2000
}}
service lmtp {{
  process_min_avail = 2
  process_limit = 100
  user = {lmtp_user}
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {lmtp}
  }}
}}
service anvil {{
  chroot =
  client_limit = 16000
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service auth {{
  client_limit = 16000
}}
service stats {{
  chroot =
  client_limit = 16000
}}
service imap-urlauth-login {{
  chroot =
}}
{extra}
"""


class Dovecot:
    """A running Dovecot. `imap`, `pop3`, `lmtp` are its ports on 127.0.0.1; `pid` is its master process."""

    host = "127.0.0.1"
    password = "secret"

    def __init__(self, *, format: Format = "sdbox", directory: Path | None = None, extra: str = "") -> None:
        self._binary = find_program("dovecot")
        self.format = format
        self._owned = directory is None
        self.root = Path(tempfile.mkdtemp(prefix="dovecot-")) if directory is None else directory
        self.imap, self.pop3, self.lmtp = free_ports(3)
        self._extra = extra
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self) -> Self:
        """Write the configuration, start the master and wait until all three doors accept."""
        self._write_config()
        with (self.root / "stderr.log").open("wb") as log:
            self._process = subprocess.Popen(
                [self._binary, "-F", "-c", str(self.root / "dovecot.conf")],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        try:
            for port in (self.imap, self.pop3, self.lmtp):
                wait_for_port(port, self._process, timeout_s=20)
        except Exception as error:
            self.stop()
            raise RuntimeError(f"dovecot did not start: {self.errors()}") from error
        return self

    def errors(self) -> str:
        """What it wrote to its error log and to stderr, for a test's message."""
        texts = []
        for name in ("stderr.log", "error.log"):
            with contextlib.suppress(OSError):
                texts.append((self.root / name).read_text(errors="replace"))
        return "\n".join(texts)

    def _write_config(self) -> None:
        root = os.geteuid() == 0
        # Dovecot refuses to work on mail as root: the mail belongs to the machine's `nobody`.
        owner = pwd.getpwnam("nobody") if root else pwd.getpwuid(os.geteuid())
        mail = self.root / "mail"
        mail.mkdir(parents=True, exist_ok=True)
        if root:
            os.chown(mail, owner.pw_uid, owner.pw_gid)
            self.root.chmod(0o755)
        me = pwd.getpwuid(os.geteuid())
        group = owner.pw_gid if root else os.getegid()
        config = CONFIG.format(
            root=self.root,
            internal_user="dovecot" if root else me.pw_name,
            internal_group="dovecot" if root else _group_name(os.getegid()),
            login_user="dovenull" if root else me.pw_name,
            lmtp_user=owner.pw_name,
            password=self.password,
            uid=owner.pw_uid,
            gid=group,
            format=self.format,
            imap=self.imap,
            pop3=self.pop3,
            lmtp=self.lmtp,
            special="".join(f"mailbox {name} {{\nauto=subscribe\nspecial_use=\\{name}\n}}\n" for name in SPECIAL),
            extra=self._extra,
        )
        (self.root / "dovecot.conf").write_text(config)

    def stop(self) -> None:
        """End it, by its own pid, and take its directory away when it was ours."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=10)
        if self._owned:
            shutil.rmtree(self.root, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()


def _group_name(gid: int) -> str:
    import grp

    return grp.getgrgid(gid).gr_name
