"""Random bytes into the LMTP/SMTP and POP3 codecs: nothing is raised, and how the bytes are cut changes nothing."""

import sys

import atheris

with atheris.instrument_imports():
    from mailkeep.wire.pop3 import Pop3Server
    from mailkeep.wire.smtp import Bad, Content, Data, SmtpServer


def smtp_events(data: bytes, size: int) -> list[object]:
    codec = SmtpServer()
    events: list[object] = []
    for start in range(0, len(data), size):
        codec.receive(data[start : start + size])
        while (event := codec.next_event()) is not None:
            if isinstance(event, Data):
                codec.expect_data()
            last = events[-1] if events else None
            if isinstance(event, Content) and isinstance(last, Content) and not last.end:
                events[-1] = Content(last.data + event.data, event.end)
            else:
                events.append(event)
    return events


def pop3_events(data: bytes, size: int) -> list[object]:
    codec = Pop3Server()
    events: list[object] = []
    for start in range(0, len(data), size):
        codec.receive(data[start : start + size])
        while (event := codec.next_event()) is not None:
            events.append(event)
    return events


def one_input(data: bytes) -> None:
    if not data:
        return
    size, data = data[0] % 7 + 1, data[1:]
    for events in (smtp_events, pop3_events):
        whole, cut = events(data, 1 << 20), events(data, size)
        assert whole == cut, (whole, cut)
    for event in smtp_events(data, 1 << 20):
        if isinstance(event, Bad):
            assert event.reply.encode().endswith(b"\r\n")


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
