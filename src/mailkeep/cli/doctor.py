"""`mailkeep doctor`: looks at everything that a server needs, and says what is wrong and how to mend it.

Each check is a function from the configuration to findings; it changes nothing, and one that fails does not stop the
next. A finding is `ok`, `absent` (nothing is wrong; some formats of exports need it), `warning` (works, but should be
looked at) or `wrong` (does not work, or will lose mail).
"""

import os
import resource
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import click

from mailkeep.cli.output import OK, SOME_FAILED, Call, common, human_size, remedy_of
from mailkeep.config import Address, Config
from mailkeep.errors import ConfigError, MailkeepError, ToolMissing

FREE_LOW: Final = 1 << 30
FREE_WRONG: Final = 100 << 20
DESCRIPTORS_MIN: Final = 4096
SQLITE_MIN: Final = (3, 45)
EXPIRY_WARN_S: Final = 14 * 86400
# Locks and memory maps of SQLite's write-ahead log are not kept by these between machines.
NETWORK_FILE_SYSTEMS: Final = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "afs", "ceph", "glusterfs", "9p")

# What the engines of exports load or show, each with what to install when it is not there.
PDF_LIBRARIES: Final = ("libpango-1.0.so.0", "libpangoft2-1.0.so.0", "libharfbuzz-subset.so.0")
PDF_LETTERS: Final = "ع漢😀"  # a writing for each package of fonts
FC_LIST_S: Final = 5


@dataclass(frozen=True, slots=True)
class Finding:
    state: str  # ok, absent, warning, wrong
    about: str
    text: str
    remedy: str = ""


def _ok(about: str, text: str) -> Finding:
    return Finding("ok", about, text)


@click.command(short_help="Say what is wrong with this set-up and how to mend it.")
@common
def doctor(call: Call) -> int:
    """Look at the configuration, the store's directory, ports, certificates and limits. Changes nothing."""
    out = call.out
    findings: list[Finding] = []
    try:
        config = call.settings()
        findings.append(_ok("configuration", str(config.file) if config.file else "built-in defaults"))
    except ConfigError as error:
        findings.append(
            Finding("wrong", "configuration", error.text, "correct that line; docs/configuration.md has all keys")
        )
        config = None
    checks: list[Callable[[], Iterator[Finding]]] = [programs, descriptors]
    if config is not None:
        settled = config
        checks += [
            lambda: directory(settled),
            lambda: space(settled),
            lambda: clock(settled),
            lambda: store(settled),
            lambda: remotes(settled),
            lambda: doors(settled),
            lambda: certificate(settled),
            lambda: sockets(settled),
        ]
    checks.append(exports)
    for check in checks:
        findings += list(check())
    wrong = sum(finding.state == "wrong" for finding in findings)
    for finding in findings:
        mark = {"ok": "ok     ", "absent": "absent ", "warning": "warning", "wrong": "WRONG  "}[finding.state]
        line = f"{mark}  {finding.about}: {finding.text}" + (f"\n         → {finding.remedy}" if finding.remedy else "")
        if finding.state in ("ok", "absent"):
            out.say(line)
        elif not out.json:
            click.echo(line, err=out.quiet)
    out.facts({"healthy": not wrong, "findings": [asdict(finding) for finding in findings]})
    return SOME_FAILED if wrong else OK


def programs() -> Iterator[Finding]:
    import apsw

    version = ".".join(map(str, sys.version_info[:3]))
    yield _ok("Python", version)
    sqlite = apsw.sqlite_lib_version()
    if tuple(int(part) for part in sqlite.split(".")[:2]) < SQLITE_MIN:
        yield Finding("wrong", "SQLite", f"{sqlite} is too old", "install the apsw wheel, which brings its own SQLite")
    else:
        yield _ok("SQLite", sqlite)


def descriptors() -> Iterator[Finding]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < DESCRIPTORS_MIN:
        yield Finding(
            "warning",
            "open files",
            f"the limit is {hard}; each connection and each open mailbox takes some",
            "raise it: LimitNOFILE=65536 in the systemd unit, or `ulimit -Hn 65536`",
        )
    else:
        yield _ok("open files", f"up to {'any number' if hard == resource.RLIM_INFINITY else hard}")


def exports() -> Iterator[Finding]:
    """What some formats of exports need besides Mailkeep. No program of them is started: that would take seconds."""
    from mailkeep.export import chromium, pdf_child, soffice

    missing = [name for name in PDF_LIBRARIES if not _loads(name)]
    yield _tool("export to pdf", "WeasyPrint, with Pango", pdf_child.MISSING if missing else "")
    for about, find in (
        ("export to pdf with --engine chromium", chromium.find),
        ("export to docx and doc", soffice.find),
    ):
        try:
            yield _tool(about, find())
        except ToolMissing as error:
            yield _tool(about, "", error.text)
    yield from _fonts()


def _tool(about: str, found: str, missing: str = "") -> Finding:
    """`missing`: an engine's own words, "what needs what: how to install it"."""
    text, _, remedy = missing.partition(": ")
    return Finding("absent", about, text, remedy) if missing else _ok(about, found)


def _loads(library: str) -> bool:
    import ctypes

    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _fonts() -> Iterator[Finding]:
    """Whether pages can show Arabic, Chinese and emoji; nothing where fontconfig's program is not there to ask."""
    import shutil
    import subprocess

    from mailkeep.export.pdf_pool import fonts_for

    program = shutil.which("fc-list")
    if program is None:
        return
    lacking = ""
    for letter in PDF_LETTERS:
        asked = [program, f":charset={ord(letter):x}", "family"]
        try:
            told = subprocess.run(asked, capture_output=True, timeout=FC_LIST_S, check=True)
        except (OSError, subprocess.SubprocessError):
            return
        lacking += "" if told.stdout.strip() else letter
    if lacking:
        text = f"none for some writings ({' '.join(lacking)}): they show as boxes in pdf, docx and doc"
        yield Finding("absent", "fonts", text, f"apt-get install {' '.join(fonts_for(lacking))}")
    else:
        yield _ok("fonts", "Arabic, Chinese and emoji too")


def directory(config: Config) -> Iterator[Finding]:
    data = config.data
    try:
        info = data.stat()
    except FileNotFoundError:
        parent = next(path for path in data.parents if path.exists())
        if os.access(parent, os.W_OK | os.X_OK):
            yield Finding("warning", "store", f"{data} is not there yet", "`mailkeep user add NAME` makes it")
        else:
            remedy = (
                f"let an administrator make it for you, or name another place with --data; {parent} is closed to you"
            )
            yield Finding("wrong", "store", f"{data} is not there and cannot be made", remedy)
        return
    except OSError as error:
        yield Finding("wrong", "store", f"{data}: {error.strerror}", "give this user access to it")
        return
    if not stat.S_ISDIR(info.st_mode):
        yield Finding("wrong", "store", f"{data} is not a directory", "name a directory with --data")
        return
    if info.st_uid != os.geteuid() and os.geteuid() != 0:
        yield Finding("wrong", "store", f"{data} belongs to another user", "run Mailkeep as that user")
    elif info.st_mode & 0o077:
        remedy = f"chmod 700 {data}"
        yield Finding("warning", "store", f"others may look into {data} ({stat.filemode(info.st_mode)})", remedy)
    elif not os.access(data, os.R_OK | os.W_OK | os.X_OK):
        yield Finding("wrong", "store", f"{data} cannot be written", "mount it for writing, or give this user access")
    else:
        yield _ok("store", f"{data}, private")
    foreign = next((path for path in _some_files(data) if path.lstat().st_uid != info.st_uid), None)
    if foreign is not None:
        remedy = f"chown -R {info.st_uid} {data}; and do not run commands as root on it"
        yield Finding("wrong", "store", f"{foreign} belongs to another user than {data}", remedy)


def _some_files(data: Path) -> Iterator[Path]:
    """The files of the store down to the accounts' databases; packs are too many to look at each."""
    for pattern in ("*", "accounts/*", "accounts/*/*", "run/*"):
        yield from data.glob(pattern)


def space(config: Config) -> Iterator[Finding]:
    if not config.data.exists():
        return
    info = os.statvfs(config.data)
    free = info.f_bavail * info.f_frsize
    text = f"{human_size(free)} free"
    remedy = "make room, or run `mailkeep gc`; mail is refused, not lost, while the disk is full"
    if os.statvfs(config.data).f_flag & os.ST_RDONLY:
        yield Finding("wrong", "disk", "the file system is mounted read-only", "mount it for writing")
    elif free < FREE_WRONG or (info.f_files and info.f_favail < 1000):
        yield Finding(
            "wrong", "disk", text + (", hardly any inodes" if info.f_files and info.f_favail < 1000 else ""), remedy
        )
    elif free < FREE_LOW:
        yield Finding("warning", "disk", text, remedy)
    else:
        yield _ok("disk", text)
    kind = file_system(config.data)
    if kind in NETWORK_FILE_SYSTEMS:
        yield Finding(
            "wrong",
            "file system",
            f"{config.data} is on {kind}, a network file system; databases break there",
            "keep the store on a local disk and back it up to the network",
        )
    elif kind in ("tmpfs", "ramfs"):
        yield Finding("warning", "file system", f"{kind}: all mail is gone when the machine stops", "use a disk")
    elif kind:
        yield _ok("file system", kind)


def file_system(path: Path) -> str:
    """The type of the file system that holds `path`; "" where that cannot be known."""
    best, kind = "", ""
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    resolved = str(path.resolve())
    for line in lines:
        fields = line.split()
        mount = fields[1].replace("\\040", " ")
        if (resolved == mount or resolved.startswith(mount.rstrip("/") + "/")) and len(mount) >= len(best):
            best, kind = mount, fields[2]
    return kind


def clock(config: Config) -> Iterator[Finding]:
    now = time.time()
    newest = (
        max((path.lstat().st_mtime for path in _some_files(config.data)), default=0.0) if config.data.exists() else 0.0
    )
    if now < 1_767_225_600:  # 1 January 2026, before this program
        yield Finding("wrong", "clock", f"it says {time.strftime('%Y-%m-%d')}", "set it: `timedatectl set-ntp true`")
    elif newest > now + 3600:
        text = f"files of the store are {(newest - now) / 3600:.0f} hours in the future"
        yield Finding("warning", "clock", text, "check it: `timedatectl`; new mail would get wrong dates")
    else:
        yield _ok("clock", time.strftime("%Y-%m-%d %H:%M %z"))


def store(config: Config) -> Iterator[Finding]:
    from mailkeep.store.store import Store

    if not (config.data / "directory.db").exists():
        return
    try:
        opened = Store.open(config.data, create=False)
        try:
            accounts = opened.directory.list()
            bare = [info for info in accounts if not opened.directory.credentials(info.id)]
            without = [info.name for info in bare if not info.read_only]  # an archive needs none until it is read
        finally:
            opened.close()
    except MailkeepError as error:
        yield Finding("wrong", "accounts", error.text, remedy_of(error))
        return
    if not accounts:
        yield Finding("warning", "accounts", "there are none", "make one: `mailkeep user add NAME`")
    else:
        yield _ok("accounts", str(len(accounts)))
    for name in without:
        yield Finding("warning", "accounts", f"{name} has no password", f"set one: `mailkeep user passwd {name}`")


def remotes(config: Config) -> Iterator[Finding]:
    """Whether each remote could be logged in to as far as this machine goes; nobody is called."""
    from mailkeep.backup.seal import unseal
    from mailkeep.backup.settings import load_remotes
    from mailkeep.store.store import Store

    if not (config.data / "directory.db").exists():
        return
    try:
        opened = Store.open(config.data, create=False)
        try:
            found = load_remotes(opened)
        finally:
            opened.close()
    except MailkeepError as error:
        yield Finding("wrong", "remotes", error.text, remedy_of(error))
        return
    good = 0
    for each in found:
        try:
            if each.settings.secret in ("sealed", "oauth2"):
                unseal(config.data, each.name, each.sealed)
        except MailkeepError as error:
            text, _, remedy = error.text.partition("; ")
            yield Finding("wrong", f"remote {each.name}", text, remedy)
            continue
        if each.settings.ca is not None and not os.access(each.settings.ca, os.R_OK):
            remedy = f"mailkeep remote set {each.name} --ca FILE"
            yield Finding("wrong", f"remote {each.name}", f"{each.settings.ca} cannot be read", remedy)
            continue
        good += 1
    if good:
        yield _ok("remotes", f"{good}, with secrets that can be opened")


def doors(config: Config) -> Iterator[Finding]:
    for door, addresses in config.listen.items():
        for address in addresses:
            if address.path is None:
                yield _door(door, address)
    if not any(config.listen.values()):
        yield Finding("warning", "doors", "all are closed", "open one under [listen] in the configuration file")


def _door(door: str, address: Address) -> Finding:
    about = f"{door} {address}"
    try:
        family, kind, proto, _, name = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, proto) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(name)
        return _ok(about, "free")
    except socket.gaierror:
        return Finding("wrong", about, "no such host", "give an address of this machine, such as 127.0.0.1")
    except PermissionError:
        remedy = "AmbientCapabilities=CAP_NET_BIND_SERVICE in the systemd unit, or a port above 1023"
        return Finding("wrong", about, "ports below 1024 need a permission", remedy)
    except OSError as error:
        if error.errno == 98:  # EADDRINUSE
            if _answers_as_mailkeep(door, address):
                return _ok(about, "Mailkeep is listening")
            remedy = f"find out who: `ss -ltnp 'sport = :{address.port}'`; stop it, or choose another port"
            return Finding("wrong", about, "another program listens there", remedy)
        return Finding(
            "wrong", about, error.strerror or str(error), "give an address of this machine, such as 127.0.0.1"
        )


def _answers_as_mailkeep(door: str, address: Address) -> bool:
    import ssl

    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)
    try:
        with socket.create_connection((host, address.port), timeout=2) as plain:
            if not door.endswith("s"):
                return b"mailkeep" in plain.recv(512).lower()
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = (
                False,
                ssl.CERT_NONE,
            )  # asked who it is, not trusted with anything
            with context.wrap_socket(plain) as tls:
                return b"mailkeep" in tls.recv(512).lower()
    except OSError:
        return False


def certificate(config: Config) -> Iterator[Finding]:
    public = [
        f"{door} {at}"
        for door, all_at in config.listen.items()
        for at in all_at
        if not at.is_loopback and door != "lmtp"
    ]
    if config.tls_certificate is None or config.tls_key is None:
        if public:
            remedy = "set certificate and key under [tls]; Let's Encrypt gives them for free"
            yield Finding("wrong", "certificate", f"none, and {public[0]} can be reached from elsewhere", remedy)
        else:
            yield _ok("certificate", "self-signed, as every door is on this machine only")
        return
    yield from certificate_files(config.tls_certificate, config.tls_key, config.hostname)


def certificate_files(certificate: Path, key: Path, hostname: str) -> Iterator[Finding]:
    import datetime

    from cryptography import x509

    from mailkeep.serve.tls import TlsConfig

    try:
        TlsConfig(certificate, key)
        loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
    except (MailkeepError, OSError, ValueError) as error:
        text = error.text if isinstance(error, MailkeepError) else str(error)
        remedy = (
            "give a PEM certificate chain and the key it was made for, without a pass phrase, readable by this user"
        )
        yield Finding("wrong", "certificate", text, remedy)
        return
    left = loaded.not_valid_after_utc.timestamp() - time.time()
    until = f"{loaded.not_valid_after_utc:%Y-%m-%d}"
    if left < 0:
        yield Finding("wrong", "certificate", f"{certificate} ended on {until}", "renew it, then send the server HUP")
    elif left < EXPIRY_WARN_S:
        yield Finding("warning", "certificate", f"{certificate} ends on {until}", "renew it, then send the server HUP")
    elif loaded.not_valid_before_utc > datetime.datetime.now(datetime.UTC):
        yield Finding("wrong", "certificate", "it is not valid yet", "check the clock: `timedatectl`")
    else:
        yield _ok("certificate", f"valid until {until}")
    try:
        names = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        hosts = [name.lower() for name in names.get_values_for_type(x509.DNSName)]
    except x509.ExtensionNotFound:
        hosts = []
    wild = "*." + hostname.lower().partition(".")[2]
    if hosts and hostname.lower() not in hosts and wild not in hosts:
        text = f"it is for {', '.join(hosts[:5])}, and this host is {hostname}"
        yield Finding("warning", "certificate", text, "clients complain unless they use such a name; see `hostname`")
    if key.stat().st_mode & 0o077:
        yield Finding("warning", "certificate", f"others may read {key}", f"chmod 600 {key}")


def sockets(config: Config) -> Iterator[Finding]:
    """Unix sockets that nobody answers at: left by a server that was killed. A new one takes their place by itself."""
    paths = [at.path for all_at in config.listen.values() for at in all_at if at.path is not None]
    for path in paths:
        if not path.exists():
            parent = path.parent
            if not os.access(parent, os.W_OK):
                remedy = f"make {parent} and give this user access to it"
                yield Finding("wrong", f"lmtp {path}", f"{parent} cannot be written", remedy)
            else:
                yield _ok(f"lmtp {path}", "free")
        elif not stat.S_ISSOCK(path.stat().st_mode):
            yield Finding(
                "wrong", f"lmtp {path}", "there is a file in its place", f"remove {path}, or choose another path"
            )
        elif _answers(path):
            yield _ok(f"lmtp {path}", "a server is listening")
        else:
            remedy = "nothing to do: `mailkeep serve` takes its place"
            yield Finding("warning", f"lmtp {path}", "left over from a server that was killed", remedy)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        return probe.connect_ex(str(path)) == 0
