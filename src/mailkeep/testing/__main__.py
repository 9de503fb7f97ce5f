"""`python -m mailkeep.testing`: a scripted server of a kind, or the proxy, as a process of its own.

    python -m mailkeep.testing gmail --port 1143 --user ann@example.org --password secret --messages 100
    python -m mailkeep.testing o365 --set lost_flags_on_append='["\\\\Flagged"]' --break 'UID FETCH:3:middle'
    python -m mailkeep.testing proxy --to 127.0.0.1:1143 --delay-ms 50

It prints one line when it listens (`imap 127.0.0.1:40001 pop3 127.0.0.1:40002`, or `proxy 127.0.0.1:40003`), then
each command as it comes if `--log` is given, and runs until it is interrupted.
"""

import asyncio
import contextlib
import dataclasses
import json
import mailbox as mailboxes
import sys
from typing import Any

import click
import uvloop

from mailkeep.testing import Break, Cut, Faults, Faulty, Ill, PopFaults, Proxy
from mailkeep.testing.kinds import KINDS


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Servers and lines with faults, on loopback, to test mail programs against."""


def _value(default: Any, text: str) -> Any:
    """A field's value from the command line: JSON where it is that, else text; of the default's type."""
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    if isinstance(default, tuple | frozenset):
        return type(default)(value)
    if isinstance(value, str) and isinstance(default, bytes):
        return value.encode()
    return value


def _faults(kind: str, settings: tuple[str, ...], breaks: tuple[str, ...]) -> Faults:
    faults = KINDS[kind].faults
    for setting in settings:
        name, _, text = setting.partition("=")
        inner = name.removeprefix("pop.")
        target: Faults | PopFaults = faults.pop if inner != name else faults
        if inner not in {field.name for field in dataclasses.fields(target)}:
            raise click.BadParameter(f"no fault {name!r}", param_hint="--set")
        changed = dataclasses.replace(target, **{inner: _value(getattr(target, inner), text)})
        faults = changed if isinstance(changed, Faults) else dataclasses.replace(faults, pop=changed)
    rules = []
    for rule in breaks:
        pattern, nth, when = [*rule.rsplit(":", 2), "", ""][:3]
        if when not in ("before", "middle", "after") or not nth.isdecimal():
            raise click.BadParameter(f"{rule!r} is not REGEX:NTH:before|middle|after", param_hint="--break")
        rules.append(Break(pattern.encode(), int(nth), when))  # type: ignore[arg-type]  # looked at above
    return dataclasses.replace(faults, breaks=(*faults.breaks, *rules))


def _fill(server: Faulty, count: int, source: str | None, ill: tuple[str, ...]) -> None:
    inbox = server.mailboxes["INBOX"]
    for number in range(1, count + 1):
        head = f"From: Ann <ann@example.org>\r\nSubject: Message {number}\r\nMessage-ID: <{number}@example.org>\r\n"
        inbox.add(f"{head}Date: Tue, 20 Jan 2026 10:00:00 +0000\r\n\r\nThis is message {number}.\r\n".encode())
    if source is not None:
        with contextlib.closing(mailboxes.mbox(source, create=False)) as box:
            for key in box.iterkeys():
                data = box.get_bytes(key).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
                inbox.add(data)
    for text in ill:
        uid, _, kind = text.partition(":")
        if not uid.isdecimal() or int(uid) not in inbox.messages:
            raise click.BadParameter(f"{text!r} is not UID:KIND, with the UID of a message", param_hint="--ill")
        inbox.messages[int(uid)].mail.ill = Ill(kind)  # type: ignore[arg-type]  # a wrong word does nothing


def _serve(kind: str, **options: Any) -> None:
    server = Faulty(
        kind,
        user=options["user"],
        password=options["password"],
        imap_port=options["port"] if KINDS[kind].protocol == "imap" else 0,
        pop3_port=options["pop3_port"] or (options["port"] if KINDS[kind].protocol == "pop3" else 0),
        faults=_faults(kind, options["settings"], options["breaks"]),
    )
    _fill(server, options["messages"], options["source"], options["ill"])
    with server:
        print(f"imap 127.0.0.1:{server.imap_port} pop3 127.0.0.1:{server.pop3_port}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.follow(sys.stderr if options["log"] else None)


def _add(kind: str) -> None:
    options = [
        click.option("--port", default=0, help="Port of the kind's own protocol; 0: any that is free."),
        click.option("--pop3-port", default=0, help="Port of POP3 beside IMAP."),
        click.option("--user", default="ann@example.org", show_default=True),
        click.option("--password", default="secret", show_default=True),
        click.option("--messages", default=10, show_default=True, help="So many in INBOX."),
        click.option("--mbox", "source", type=click.Path(exists=True, dir_okay=False), help="These in INBOX as well."),
        click.option("--set", "settings", multiple=True, metavar="FAULT=VALUE", help="A field of Faults; JSON."),
        click.option("--break", "breaks", multiple=True, metavar="REGEX:NTH:WHEN", help="End a connection there."),
        click.option("--ill", multiple=True, metavar="UID:KIND", help="A message of INBOX that cannot be had."),
        click.option("--log", is_flag=True, help="Write each command to stderr."),
    ]

    def run(**values: Any) -> None:
        _serve(kind, **values)

    for option in options:
        run = option(run)
    main.command(kind, help=f"A server like {kind}.")(run)


for _kind in KINDS:
    _add(_kind)


@main.command()
@click.option("--to", required=True, metavar="HOST:PORT", help="Where to connect callers to.")
@click.option("--port", default=0, help="Listen here; 0: any port that is free.")
@click.option("--delay-ms", default=0.0, help="Round trip, half of it each way.")
@click.option("--bytes-per-s", type=float, help="Bandwidth of each direction of each connection.")
@click.option("--cut-after", type=int, help="Cut each connection after so many octets from the server.")
@click.option("--cut-at", help="Cut each connection where this regex matches what the server sends.")
@click.option("--cut-times", type=int, help="Only so many connections.")
def proxy(to: str, port: int, delay_ms: float, **cut: Any) -> None:
    """A line to another server: slow, narrow, or cut."""
    host, _, number = to.rpartition(":")
    cuts = []
    if cut["cut_after"] is not None or cut["cut_at"] is not None:
        pattern = cut["cut_at"].encode() if cut["cut_at"] is not None else None
        cuts.append(Cut(cut["cut_after"], pattern, times=cut["cut_times"]))
    made = Proxy((host, int(number)), delay_ms=delay_ms, bytes_per_s=cut["bytes_per_s"], cuts=cuts, port=port)

    async def run() -> None:
        server = await made.listen()
        print(f"proxy 127.0.0.1:{made.port}", flush=True)
        await server.serve_forever()

    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        uvloop.run(run())


if __name__ == "__main__":
    main(prog_name="python -m mailkeep.testing")
