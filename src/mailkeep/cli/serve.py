"""`mailkeep serve`: reads the words of the command line, fills the demo account, prints the doors; app.py serves."""

import os
import sys
from typing import Any, Final

import click

from mailkeep import config as configuration
from mailkeep import log
from mailkeep.cli.output import Call, Out, common, human_size, opened, watched
from mailkeep.config import DOORS, Config
from mailkeep.errors import UsageError

DEMO_USER: Final = "demo@example.org"
DEMO_PASSWORD: Final = "demo"  # told to everybody, and therefore refused on anything but loopback


@click.command(short_help="Start the server.")
@common
@click.option("--imap", multiple=True, metavar="H:P", help="IMAP with STARTTLS. Default 127.0.0.1:1143.")
@click.option("--imaps", multiple=True, metavar="H:P", help="IMAP over TLS. Default 127.0.0.1:1993.")
@click.option("--pop3", multiple=True, metavar="H:P", help="POP3 with STLS. Default 127.0.0.1:1110.")
@click.option("--pop3s", multiple=True, metavar="H:P", help="POP3 over TLS. Default 127.0.0.1:1995.")
@click.option("--lmtp", multiple=True, metavar="H:P|PATH", help="LMTP. Default 127.0.0.1:1024.")
@click.option("--workers", type=click.IntRange(1, 256), metavar="N", help="Processes that share the ports. Default 1.")
@click.option("--demo", is_flag=True, help="Make a demo account with sample messages.")
def serve(call: Call, *, workers: int | None, demo: bool, **listen: tuple[str, ...]) -> int:
    """Serve mail until TERM or Ctrl-C; HUP reads certificates and configuration again.

    Without options every door opens on this machine only, at the usual port plus 1000. Options that name doors open
    those and no others; port 0 takes a free port. `none` closes a door that the configuration file opens.
    """
    out = call.out
    given = {door: words for door, words in listen.items() if words}

    def read() -> Config:
        return configuration.load(call.file, data=call.data, listen=given, workers=workers)

    settings = read()
    log.configure(level="debug" if call.debug else settings.log_level, form=settings.log_format)
    _check(settings, demo)

    from mailkeep import app

    app.prepare(settings)
    tls_files = app.certificate_files(settings)
    everybody = app.bind(settings)
    if demo:
        fill_demo(settings, out)
    with opened(settings, create=True) as store:  # what is wrong with the store is said here, with its own exit code
        empty = not store.directory.list()
    doors = [(door, app.shown_address(sock)) for door, sock in everybody[0]]

    def ready() -> None:
        for door, where in doors:
            out.say(f"listening {door} {where}")
        if demo:
            _greet(out, doors)
        if empty:
            out.warn("There are no accounts yet; make one with `mailkeep user add NAME`.")
        out.say("ready")
        out.facts({"ready": True, "pid": os.getpid(), "doors": [{"door": d, "address": a} for d, a in doors]})
        sys.stdout.flush()

    return app.serve(settings, everybody, tls_files, reload=read, ready=ready)


def _check(settings: Config, demo: bool) -> None:
    opened = [address for addresses in settings.listen.values() for address in addresses]
    if not opened:
        raise UsageError("every door is closed; open one with --imap 127.0.0.1:1143, or drop `none`")
    if demo and not all(address.is_loopback for address in opened):
        raise UsageError("--demo has a password that everybody knows, so it listens on 127.0.0.1 only")


# --- the demo --------------------------------------------------------------------------------------------------------


def fill_demo(settings: Config, out: Out) -> None:
    """Make the account and its mail, unless they are there. What the user deleted since does not come back."""
    from mailkeep.export import demo
    from mailkeep.export.importer import Importer
    from mailkeep.secret import Secret
    from mailkeep.serve.auth import make_credentials

    with opened(settings, create=True) as store:
        if store.directory.find(DEMO_USER) is None:
            store.directory.add(DEMO_USER, credentials=make_credentials(Secret(DEMO_PASSWORD)))
        items = list(demo.items())
        with watched(out, "Making sample mail", "messages") as progress:
            progress.total = sum(item.size for item in items)
            importer = Importer(store, store.account(DEMO_USER), progress=progress)
            for _ in importer.items(items):
                pass
        if importer.summary.added:
            size = human_size(importer.summary.bytes)
            out.warn(f"Made {importer.summary.added} sample messages ({size}) in {settings.data}.")


def _greet(out: Out, doors: list[tuple[str, str]]) -> None:
    names = {
        "imap": "IMAP (STARTTLS or none)",
        "imaps": "IMAP over TLS",
        "pop3": "POP3 (STLS or none)",
        "pop3s": "POP3 over TLS",
        "lmtp": "LMTP (mail comes in)",
    }
    rows: list[list[Any]] = [["Address", DEMO_USER], ["User", DEMO_USER], ["Password", DEMO_PASSWORD]]
    rows += [[names[door], where] for door in DOORS for name, where in doors if name == door]
    out.say("")
    out.table(["Type into a mail client", ""], rows)
    out.say("The certificate is self-signed: the client asks once whether to trust it.")
    out.say("")
