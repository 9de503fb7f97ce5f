"""Fetching messages whole: windows of UIDs, several in flight, on one connection or on more.

It knows FETCH and what goes wrong with it, and nothing of where messages are kept, but that large ones flow into a
Staging. Every UID that it is given comes out exactly once, as a `Body` with its bytes or with a `problem`.

The one hard idea: a UID is owned by exactly one place, the list of what is to do or one window in flight, and whatever
happens to the window (refused, half answered, cut) what it still owns goes back. Refused windows are halved until the
message that spoils them is alone; alone it is asked for in other words (RFC822, then header and text apart). A message
on which a server cuts the line is found the same way, so one poisoned message never stops a run.
"""

import asyncio
import re
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from msgspec import Struct

from mailkeep.backup.imap_link import ImapLink, Reply
from mailkeep.backup.pace import Pace, is_passing
from mailkeep.errors import MailkeepError, ProtocolError, RemoteBusy, Unreachable
from mailkeep.mail.flags import RECENT
from mailkeep.mail.numset import NumSet
from mailkeep.store.staging import Staging
from mailkeep.wire.imap_answer import STREAMED, Answer, BodyChunk, BodyStart, Fetched
from mailkeep.wire.imap_command import Fetch, FetchBody, FetchItem, Section

READY_MAX: Final = 32 << 20  # bytes fetched and not yet consumed; above, no connection is read
STAGED_COUNTS: Final = 1 << 20  # what a message in a file counts there: files are bounded too
LINE_MAX: Final = 7000  # octets of a FETCH: RFC 7162 section 4 asks servers to take 8000
CUTS_MAX: Final = 6  # in a row, with nothing received between them
POISON_CUTS_MAX: Final = 12  # the same, while messages are asked for alone because the line was cut at them before
SHORT_WAIT_S: Final = 0.5  # where waiting longer would change nothing
WAIT_MAX_S: Final = 120.0  # who must wait longer comes back later
SIZE_MAX: Final = 2 << 30  # of one message; a literal that claims more is not taken
NO_FLAGS: Final[frozenset[str]] = frozenset()
NOTHING: Final[Mapping[str, Any]] = {}

_RECENT = frozenset((RECENT,))
_WHOLE = FetchBody(Section(), peek=True, kind="BODY", label=b"BODY[]")
_RFC822 = FetchBody(Section(), peek=False, kind="RFC822", label=b"RFC822")
_HEADER = FetchBody(Section((), "HEADER"), peek=True, kind="BODY", label=b"BODY[HEADER]")
_TEXT = FetchBody(Section((), "TEXT"), peek=True, kind="BODY", label=b"BODY[TEXT]")
_PARTS = (_HEADER, _TEXT)
_WHOLE_LABELS: Final = (b"BODY[]", b"RFC822", b"BODY[]<0>", b"RFC822.PEEK")


class Body(Struct, frozen=True):
    """One message. `data` is None where there is a `problem`; a Staging is the caller's to finish or discard.

    problem: "vanished" (expunged meanwhile), "empty" (answered with nothing), "failed" (refused each way we asked),
    "replaced" (the server's own text in place of the mail), "too large"; `detail` has the server's words.
    """

    uid: int
    flags: frozenset[str]
    modseq: int | None
    internaldate: int | None  # Unix seconds
    size: int | None  # what the server said, which may be wrong
    data: bytes | Staging | None
    values: Mapping[str, Any]
    problem: str | None = None
    detail: str | None = None  # also a note on data that is there: "size differs", "fetched by parts"


@dataclass(frozen=True, slots=True)
class Clock:
    """Time as the caller has it; tests bring their own."""

    now: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


@dataclass(slots=True)
class Lane:
    """One connection that takes part. `renew` gives another one with the same mailbox selected, or raises."""

    link: ImapLink
    renew: Callable[[], Awaitable[ImapLink]]
    counted: int = 0  # bytes of it that pace knows of


Joining = Callable[[], Awaitable[Lane | None]]


@dataclass(frozen=True, slots=True)
class Wish:
    """What to ask for. `forms`: the ways to ask for a body, one after the other."""

    items: tuple[str, ...]
    forms: tuple[tuple[FetchItem, ...], ...]
    staging: Callable[[], Staging]
    size_max: int = SIZE_MAX
    replaced: str | None = None  # quirks.reject_body_regex
    line_max: int = LINE_MAX


def forms_for(fetch_item: str, *, read_only: bool) -> tuple[tuple[FetchItem, ...], ...]:
    """The quirk's form first. RFC822 marks a message as seen unless the mailbox is opened read-only."""
    first, second = (_RFC822, _WHOLE) if fetch_item.upper().startswith("RFC822") else (_WHOLE, _RFC822)
    forms = [(form,) for form in (first, second) if form.peek or read_only or form is first]
    return (*forms, _PARTS)


@dataclass(slots=True)
class _Window:
    """A FETCH, under way or to be sent. `left` owns the UIDs that have not been answered for."""

    left: dict[int, None]  # in the order given
    form: int = 0
    present: bool = False  # those left are known to be there still
    told: str = ""  # the server's words when it refused
    future: "asyncio.Future[Reply] | None" = None
    asked: int = 0
    nothing: bool = False  # it answered OK and gave no bytes


@dataclass(slots=True)
class _Hand:
    """What a lane holds while it works."""

    lane: Lane
    flying: deque[_Window] = field(default_factory=deque)
    owner: dict[int, _Window] = field(default_factory=dict)
    partial: dict[int, Fetched] = field(default_factory=dict)  # facts that came apart from the body
    staging: Staging | None = None  # the message that streams in
    streaming: int = 0  # its UID where it is known


class BodyRun:
    """One run over a list of UIDs. `bodies` may be iterated once."""

    def __init__(self, uids: Sequence[int], wish: Wish, *, pace: Pace, clock: Clock | None = None) -> None:
        self._todo: deque[_Window] = deque()
        self._uids = uids
        self._next = 0  # index into _uids
        self._left = len(uids)  # not given out yet
        self._wish = wish
        self._pace = pace
        self._clock = clock or Clock()
        self._ready: deque[Body] = deque()
        self._ready_bytes = 0
        self._hands: list[_Hand] = []
        self._news = asyncio.Event()
        self._later: deque[_Window] = deque()  # messages at which the line was cut, for the end
        self._doubtful: list[Body] = []  # given up because of cuts, until the server has shown that it works
        self._cuts = 0  # in a row
        self._poison_cuts = 0  # in a row
        self._advanced = False  # something has come since the last cut
        self._cut_at: dict[int, int] = {}  # UID → how often the line was cut when it was its turn
        self._closed = False
        self._held = False
        self._reject = re.compile(wish.replaced.encode()) if wish.replaced else None

    async def bodies(self, lane: Lane, late: Iterable[Joining] = ()) -> AsyncGenerator[Body, None]:
        """Begins on `lane`; each of `late` gives one more lane when it is open, or None.

        Raises what ends the run: BadCredentials, RemoteBusy, Unreachable, RemoteError, StoreError.
        """
        tasks = [asyncio.ensure_future(self._work(self._hand(lane)))]
        tasks += [asyncio.ensure_future(self._join(each)) for each in late]
        for task in tasks:
            task.add_done_callback(lambda _: self._news.set())
        try:
            while True:
                while self._ready:
                    yield self._take()
                if not self._left:
                    return
                failed = [task for task in tasks if task.done() and task.exception() is not None]
                if failed and (len(failed) == len(tasks) or not _may_go_on(failed)):
                    raise _first_error(failed)
                if all(task.done() for task in tasks):
                    assert failed, "UIDs were lost"
                    raise _first_error(failed)
                self._news.clear()
                await self._news.wait()
        finally:
            self._closed = True
            if not self._left:
                await self._settle()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._let_go()

    async def _settle(self) -> None:
        """All is there, but for the word that ends the last windows."""
        for hand in self._hands:
            hand.lane.link.release()
        asked = [window.future for hand in self._hands for window in hand.flying if window.future is not None]
        if asked:
            await asyncio.wait(asked, timeout=self._hands[0].lane.link.timeout_s)

    def _hand(self, lane: Lane) -> _Hand:
        hand = _Hand(lane)
        self._hands.append(hand)
        if self._held:
            lane.link.hold()
        return hand

    async def _join(self, joining: Joining) -> None:
        lane = await joining()
        if lane is not None:
            await self._work(self._hand(lane))

    # --- the consumer's side ---

    def _take(self) -> Body:
        body = self._ready.popleft()
        self._ready_bytes -= _weight(body)
        if self._held and self._ready_bytes < READY_MAX // 2:
            self._held = False
            for hand in self._hands:
                hand.lane.link.release()
        return body

    def _give(self, body: Body) -> None:
        if self._closed:
            if isinstance(body.data, Staging):
                body.data.discard()
            return
        self._left -= 1
        self._ready.append(body)
        self._ready_bytes += _weight(body)
        self._cuts = self._poison_cuts = 0
        self._advanced = True
        if self._doubtful:
            doubtful, self._doubtful = self._doubtful, []
            for each in doubtful:
                self._give(each)
        if self._ready_bytes > READY_MAX and not self._held:
            self._held = True
            for hand in self._hands:
                hand.lane.link.hold()
        self._news.set()

    def _let_go(self) -> None:
        for body in self._ready:
            if isinstance(body.data, Staging):
                body.data.discard()
        self._ready.clear()
        for hand in self._hands:
            if hand.staging is not None:
                hand.staging.discard()
            if hand.lane.link.pending and hand.lane.link.alive:
                # Its answers are still on their way, and nobody would take them.
                hand.lane.link.abort()
            hand.lane.link.release()

    # --- a lane's work ---

    async def _work(self, hand: _Hand) -> None:
        while True:
            try:
                await self._fill(hand)
                if not hand.flying:
                    return
                window = hand.flying[0]
                assert window.future is not None
                reply = await window.future
                hand.flying.popleft()
                await self._answered(hand, window, reply)
            except (Unreachable, ProtocolError, RemoteBusy) as error:
                if hand.lane.link.alive:
                    hand.lane.link.abort()
                await self._renew(hand, error)

    async def _fill(self, hand: _Hand) -> None:
        """Send windows until enough are in flight. Waits only when there is nothing to wait for but time."""
        while len(hand.flying) < self._pace.depth:
            wait = self._pace.wait_s(self._clock.now())
            if wait > 0.0:
                if hand.flying:
                    return
                await self._wait(wait, hand)
                continue
            window = self._next_window()
            if window is None:
                return
            self._send(hand, window)

    async def _wait(self, wait: float, hand: _Hand) -> None:
        if wait > WAIT_MAX_S:
            left = self._pace.left(self._clock.now())
            why = "has given what it gives in a day" if left == 0 else "asks for patience"
            text = f"{hand.lane.link.host} {why}; go on in {_spoken(wait)}, what came is kept"
            raise RunPaused(text, retry_after_s=wait)
        await self._clock.sleep(wait)

    def _next_window(self) -> _Window | None:
        if self._todo:
            return self._todo.popleft()
        if self._next >= len(self._uids):
            return self._later.popleft() if self._later else None
        count = self._pace.window
        while True:
            chosen = self._uids[self._next : self._next + count]
            # A number of ten digits and its comma, at worst; runs are shorter.
            if len(chosen) * 11 <= self._wish.line_max or count == 1 or _octets(chosen) <= self._wish.line_max:
                break
            count = max(1, count // 2)
        self._next += len(chosen)
        window = _Window(dict.fromkeys(chosen))
        self._left -= len(chosen) - len(window.left)  # one that is named twice comes once
        return window

    def _send(self, hand: _Hand, window: _Window) -> None:
        window.asked = len(window.left)
        for uid in window.left:
            hand.owner[uid] = window
        hand.flying.append(window)
        self._pace.asked(self._clock.now(), window.asked)
        items = (*self._wish.items, *self._wish.forms[window.form])
        command = Fetch(True, NumSet.of(window.left), items)
        window.future = hand.lane.link.start(command, sink=lambda answer: self._sink(hand, answer))

    async def _answered(self, hand: _Hand, window: _Window, reply: Reply) -> None:
        """A FETCH has ended; what it still owns finds its next place."""
        self._count(hand)
        for uid in window.left:
            hand.owner.pop(uid, None)
        if reply.ok:
            self._pace.succeeded(window.asked)
        if not window.left:
            return
        if reply.ok:
            window.nothing = True
            if not window.present:
                try:
                    await self._sort_out(hand, window)
                except BaseException:
                    self._requeue([window])  # it is in flight no more, and must not be nowhere
                    raise
            self._alone(hand, window)
            return
        window.told = reply.status.text
        if is_passing(reply.code, reply.status.text, hand.lane.link.quirks):
            self._requeue([window])
            self._cut()
            self._pace.troubled(self._clock.now(), _retry_after(hand.lane.link, reply))
            if self._cuts > CUTS_MAX:
                raise RunPaused(hand.lane.link.error_of(reply, "FETCH").text, retry_after_s=None)
        elif len(window.left) > 1:
            self._requeue(_halves(window))
        else:
            self._alone(hand, window)

    async def _sort_out(self, hand: _Hand, window: _Window) -> None:
        """OK, and some were not among the answers: expunged meanwhile, or left out?"""
        there: set[int] = set()

        def see(answer: Answer) -> None:
            self._sink(hand, answer)  # pipelined windows answer in between
            if isinstance(answer, Fetched) and answer.uid is not None:
                there.add(answer.uid)

        reply = await hand.lane.link.start(Fetch(True, NumSet.of(window.left), ("UID", "FLAGS")), sink=see)
        if not reply.ok:
            return
        window.present = True
        for uid in [uid for uid in window.left if uid not in there]:
            del window.left[uid]
            hand.partial.pop(uid, None)
            self._give(Body(uid, NO_FLAGS, None, None, None, None, NOTHING, "vanished"))

    def _alone(self, hand: _Hand, window: _Window) -> None:
        """Each of those left once more: by itself first, then in other words, then it is given up."""
        single = window.asked == 1
        form = window.form + 1 if single else window.form
        for uid in window.left:
            if form < len(self._wish.forms):
                again = _Window({uid: None}, form, present=window.present, told=window.told, nothing=window.nothing)
                self._todo.append(again)
                continue
            facts = hand.partial.pop(uid, None) or Fetched(0, uid)
            problem = "empty" if window.nothing else "failed"
            self._give(_body(uid, facts, None, problem=problem, detail=window.told or None))

    def _requeue(self, windows: Iterable[_Window]) -> None:
        """Back to the front, in their order."""
        for window in reversed([window for window in windows if window.left]):
            window.future = None
            self._todo.appendleft(window)

    def _count(self, hand: _Hand) -> None:
        link = hand.lane.link
        moved = link.stream.bytes_in - hand.lane.counted
        hand.lane.counted = link.stream.bytes_in
        if moved > 0:
            self._pace.moved(self._clock.now(), moved)

    # --- after a cut ---

    def _cut(self) -> None:
        self._cuts += 1

    async def _renew(self, hand: _Hand, error: MailkeepError) -> None:
        """Give back what was in flight, wait, and open another connection. Raises when there is no sense in it."""
        if isinstance(error, RunPaused):
            raise error
        self._count(hand)
        if hand.staging is not None:
            hand.staging.discard()
            hand.staging = None
        poisoned = self._suspect(hand)
        self._requeue(hand.flying)
        hand.flying.clear()
        hand.owner.clear()
        hand.partial.clear()
        if self._left == len(self._doubtful):  # nothing else is left that could prove the server good
            doubtful, self._doubtful = self._doubtful, []
            for body in doubtful:
                self._give(body)
            return
        while True:
            await self._pause(hand, error, poisoned=poisoned)
            try:
                hand.lane.link = await hand.lane.renew()
            except (Unreachable, ProtocolError, RemoteBusy) as again:
                error, poisoned = again, False
                continue
            hand.lane.counted = 0
            if self._held:
                hand.lane.link.hold()
            return

    async def _pause(self, hand: _Hand, error: MailkeepError, *, poisoned: bool) -> None:
        """Before another line is opened. Raises when there were too many cuts already."""
        if poisoned:  # the message is to blame and not the load: no reason to slow down
            self._poison_cuts += 1
        else:
            self._cut()
        if self._cuts > CUTS_MAX or self._poison_cuts > POISON_CUTS_MAX:
            times = self._cuts + self._poison_cuts
            text = f"{error.text}, {times} times in a row; what came is kept, the same command goes on from there"
            raise _like(error, text)
        advanced, self._advanced = self._advanced, False
        if advanced and not isinstance(error, RemoteBusy):
            self._pace.shrink()
            poisoned = True
        if poisoned:
            await self._clock.sleep(SHORT_WAIT_S)
            return
        hint = error.retry_after_s if isinstance(error, RemoteBusy) else None
        await self._wait(self._pace.troubled(self._clock.now(), hint), hand)

    def _suspect(self, hand: _Hand) -> bool:
        """The message whose turn it was may be why: the second time it is put aside, to be asked for alone at the end,
        then by parts. True: it was the second time, or a later one."""
        if not hand.flying:
            return False
        window = hand.flying[0]
        uid = hand.streaming if hand.streaming in window.left else min(window.left, default=0)
        hand.streaming = 0
        if not uid:
            return False
        cuts = self._cut_at[uid] = self._cut_at.get(uid, 0) + 1
        if cuts < 2:
            return False
        del window.left[uid]
        last = len(self._wish.forms) - 1
        if window.form < last:
            form = last if window.asked == 1 else window.form
            self._later.append(_Window({uid: None}, form, present=window.present, told="the line was cut"))
        else:
            detail = "the server cuts the line at it"
            self._doubtful.append(_body(uid, Fetched(0, uid), None, problem="failed", detail=detail))
        return True

    # --- what comes ---

    def _sink(self, hand: _Hand, answer: Answer) -> None:
        if isinstance(answer, Fetched):
            uid = answer.uid
            window = hand.owner.get(uid) if uid is not None else None
            staging, hand.staging = (hand.staging, None) if hand.staging is not None else (None, None)
            used = window is not None and self._received(hand, answer, window, staging)
            if staging is not None and not used:
                staging.discard()
        elif isinstance(answer, BodyChunk):
            if hand.staging is not None:
                hand.staging.write(answer.data)
        elif isinstance(answer, BodyStart):
            self._started(hand, answer)

    def _started(self, hand: _Hand, answer: BodyStart) -> None:
        uid = answer.so_far.uid or 0
        hand.streaming = uid
        held = hand.staging.size if hand.staging is not None else 0  # what streamed in before, in the same answer
        if answer.size + held > self._wish.size_max:
            window = hand.owner.pop(uid, None)
            if window is not None:
                window.left.pop(uid, None)
                self._give(_body(uid, answer.so_far, None, problem="too large", detail=f"{answer.size} bytes"))
            raise Unreachable(f"{hand.lane.link.host} sends a message of {answer.size} bytes; the line was cut")
        if hand.staging is None and not self._closed:
            hand.staging = self._wish.staging()

    def _received(self, hand: _Hand, answer: Fetched, window: _Window, staging: Staging | None) -> bool:
        """FETCH data of a message that we wait for. False: the staging is not used."""
        uid = answer.uid
        assert uid is not None
        data: bytes | Staging | None
        if window.form == len(self._wish.forms) - 1:
            data = _joined(answer, staging)
        else:
            sections = answer.sections
            section = sections.get(b"BODY[]")
            if section is None:
                section = next((sections[label] for label in _WHOLE_LABELS if sections.get(label) is not None), None)
            data = staging if section is STREAMED else section  # type: ignore[assignment]  # the rest is bytes or None
        facts = answer
        if hand.partial:
            facts = _merged(hand.partial.get(uid), answer)
        if not data and not isinstance(data, Staging):
            hand.partial[uid] = facts
            return False
        hand.partial.pop(uid, None)
        del hand.owner[uid]
        del window.left[uid]
        self._give(self._judged(uid, facts, data, window))
        return data is staging

    def _judged(self, uid: int, facts: Fetched, data: bytes | Staging, window: _Window) -> Body:
        if self._reject is not None and isinstance(data, bytes) and len(data) < 65536 and self._reject.search(data):
            return _body(uid, facts, None, problem="replaced", detail="the server's own text in place of the mail")
        size = data.size if isinstance(data, Staging) else len(data)
        detail = None
        if window.form == len(self._wish.forms) - 1:
            detail = "fetched by parts"
        elif facts.size is not None and facts.size != size:
            detail = "size differs"
        return _body(uid, facts, data, detail=detail)


class RunPaused(RemoteBusy):
    """The run must go on later: no connection is to blame, and no new one helps."""


def lasting(flags: frozenset[str]) -> frozenset[str]:
    """Without \\Recent, which is about a session and not about the message."""
    return flags - _RECENT if RECENT in flags else flags


def _body(
    uid: int,
    facts: Fetched,
    data: bytes | Staging | None,
    *,
    problem: str | None = None,
    detail: str | None = None,
) -> Body:
    flags = lasting(facts.flags) if facts.flags is not None else NO_FLAGS
    return Body(uid, flags, facts.modseq, facts.internaldate, facts.size, data, facts.values, problem, detail)


def _merged(earlier: Fetched | None, answer: Fetched) -> Fetched:
    """Facts that came in two answers."""
    if earlier is None:
        return answer
    return Fetched(
        answer.seq,
        answer.uid,
        answer.flags if answer.flags is not None else earlier.flags,
        answer.modseq if answer.modseq is not None else earlier.modseq,
        answer.internaldate if answer.internaldate is not None else earlier.internaldate,
        answer.size if answer.size is not None else earlier.size,
        {},
        {**earlier.values, **answer.values},
    )


def _joined(answer: Fetched, staging: Staging | None) -> bytes | Staging | None:
    """Header and text of one message; a streamed one is in the staging."""
    header, text = answer.sections.get(b"BODY[HEADER]"), answer.sections.get(b"BODY[TEXT]")
    if header is None or not isinstance(header, bytes):
        return None  # a header that is streamed is none that anybody wrote
    if text is STREAMED and staging is not None:
        staging.prepend(header)
        return staging
    return header + text if isinstance(text, bytes) else header


def _halves(window: _Window) -> list[_Window]:
    uids = list(window.left)
    middle = len(uids) // 2
    return [_Window(dict.fromkeys(half), window.form, window.present) for half in (uids[:middle], uids[middle:])]


def _weight(body: Body) -> int:
    return STAGED_COUNTS if isinstance(body.data, Staging) else len(body.data or b"")


def _octets(uids: Iterable[int]) -> int:
    return len(bytes(NumSet.of(uids)))


def _retry_after(link: ImapLink, reply: Reply) -> float | None:
    error = link.error_of(reply, "FETCH")
    return error.retry_after_s if isinstance(error, RemoteBusy) else None


def _like(error: MailkeepError, text: str) -> MailkeepError:
    if isinstance(error, RemoteBusy):
        return RemoteBusy(text, retry_after_s=error.retry_after_s, code=error.code)
    return Unreachable(text) if isinstance(error, Unreachable) else ProtocolError(text)


def _may_go_on(failed: "Iterable[asyncio.Task[None]]") -> bool:
    """Whether the other lanes may finish what one has left: it has lost its line, and no more."""
    return all(isinstance(task.exception(), Unreachable | RemoteBusy) for task in failed)


def _first_error(failed: "Sequence[asyncio.Task[None]]") -> BaseException:
    error = failed[0].exception()
    assert error is not None
    return error


def _spoken(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{round(minutes / 60)} h"
