"""What one caller has of a process: its calls take turns and begin in order, and its time is metered beside others."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from bots_server.api import share as module
from bots_server.api.admission import LongCalls, ShortCalls
from bots_server.api.share import Presence, Share
from bots_server.errors import DeadlineExceeded, ServerStopping
from bots_server.runs.turn import off_turn, on_turn
from bots_server.store import within
from tests.api.service import SECONDS, Service


class Beside(Presence):
    """Another caller is there for a second, again and again, until `left` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.left = False

    def beside(self, who: str) -> float:
        return 0.0 if self.left else 1.0


@pytest.fixture
def stopping() -> threading.Event:
    return threading.Event()


@pytest.fixture
def beside() -> Beside:
    return Beside()


@pytest.fixture
def share(beside: Beside, stopping: threading.Event) -> Share:
    """The share of a caller beside another one."""
    return Share("one", beside, stopping, metered=True)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock, which stands still."""
    now = [100.0]
    monkeypatch.setattr("bots_server.api.share.time.monotonic", lambda: now[0])
    return now


@contextmanager
def resuming(share: Share, seconds: float = SECONDS) -> Iterator[Any]:
    """Yields the future of a call that waits to go on, because another call has the turn."""

    def call() -> None:
        with within(seconds), on_turn(share), off_turn():
            off.set()
            taken.wait(SECONDS)

    off, taken = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(call)
        assert off.wait(SECONDS)
        share.begin()
        taken.set()
        Service.wait_until(lambda: share._resuming)
        yield future


def test_caller_counts_as_there_in_proportion_to_what_it_takes(clock: list[float]) -> None:
    """For 100 s for each second of a processor, and 1 s at most: one that calls once a second slows others little."""
    presence = Presence()
    assert presence.beside("one") == 0
    presence.took("monitor", 0.0025)
    presence.took("one", 0.1)
    assert presence.beside("one") == 0.25
    assert presence.beside("monitor") == 1
    clock[0] += 0.125
    assert presence.beside("one") == 0.125
    presence.took("monitor", 0.0025)
    assert presence.beside("one") == 0.375
    presence.took("trainer", 0.5)
    assert presence.beside("one") == presence.beside("monitor") == 1
    assert presence.beside("trainer") == 0.875
    clock[0] += 1
    assert presence.beside("one") == 0


def test_of_many_callers_one_that_is_there_is_enough(clock: list[float]) -> None:
    """Whichever of them took something last."""
    presence = Presence()
    for number in (3, 1, 4, 2, 0):
        presence.took(str(number), number / 1024)
    clock[0] += 0.25
    assert [presence.beside(str(number)) > 0 for number in range(5)] == [True] * 5
    clock[0] += 0.0625
    assert [presence.beside(str(number)) > 0 for number in range(5)] == [True] * 4 + [False]


def test_one_call_of_a_caller_is_in_progress_beside_other_callers(stopping: threading.Event) -> None:
    """A caller that is alone has two."""
    calls = ShortCalls(3, stopping)
    one: Any = SimpleNamespace(peer=lambda: "ipv4:10.0.0.1:1000")
    other: Any = SimpleNamespace(peer=lambda: "ipv4:10.0.0.1:2000")
    with calls.admitted("", one):
        with (
            calls.admitted("", other),
            pytest.raises(DeadlineExceeded),
            within(0.05),
            calls.admitted("", one),
        ):
            pass
        with within(SECONDS), calls.admitted("", one):
            pass


def test_caller_beside_others_has_an_eighth_of_a_processor(share: Share, beside: Beside, clock: list[float]) -> None:
    """Half a second of it at once; then a call waits 8 s for each second taken, and at most 2 s."""
    share.spend(0.5)
    assert share.debt() == 0
    share.spend(0.125)
    assert share.debt() == 1
    clock[0] += 0.75
    assert share.debt() == 0.25
    share.spend(5)
    assert share.debt() == 2
    beside.left = True
    assert share.debt() == 0


def test_call_begins_when_the_time_of_earlier_ones_is_paid(share: Share) -> None:
    """A deadline before that is one that it misses. The only call of its caller does not wait."""
    share.spend(0.53)
    share.calls = 2
    with within(0.05), pytest.raises(DeadlineExceeded):
        share.begin()
    began = time.monotonic()
    share.begin()
    assert time.monotonic() - began > 0.05
    share.release()
    share.spend(5)
    share.calls = 1
    with within(0.05):
        share.begin()


def test_call_begins_when_it_is_the_only_one_that_is_left(share: Share, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a further wait, since a caller with one call at a time waits for none of its earlier ones."""
    monkeypatch.setattr(module, "MOST_DEBT_SECONDS", SECONDS)
    monkeypatch.setattr(module, "LOOK_SECONDS", SECONDS)
    share.spend(100)
    share.calls = 2
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(share.begin)
        Service.wait_until(lambda: share._begins)
        share.end_call()
        call.result(SECONDS / 2)


def test_call_begins_when_other_callers_are_gone(stopping: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, since a caller that is alone is not metered."""
    monkeypatch.setattr(module, "MOST_DEBT_SECONDS", SECONDS)
    monkeypatch.setattr(module, "LOOK_SECONDS", SECONDS)
    share = Share("one", presence := Presence(), stopping, metered=True)
    share.spend(100)
    share.calls = 2
    presence.took("other", 0.002)
    with within(SECONDS / 2):
        share.begin()


def test_calls_of_one_caller_begin_in_their_order(share: Share) -> None:
    """Also if one of them leaves, and one that came before the newest is still asleep."""
    begun = list[int]()

    def call(number: int, timeout: float) -> None:
        with within(timeout):
            share.begin()
        begun.append(number)
        share.release()

    share.calls = 8
    share.begin()
    with ThreadPoolExecutor(8) as threads:
        leaver = threads.submit(call, 0, 0.3)
        Service.wait_until(lambda: len(share._begins) == 1)
        for number in range(1, 8):
            threads.submit(call, number, SECONDS)
            Service.wait_until(lambda waiting=number + 1: len(share._begins) + leaver.done() == waiting)  # type: ignore[misc]
        Service.wait_until(leaver.done)
        share.release()
    assert isinstance(leaver.exception(), DeadlineExceeded)
    assert begun == list(range(1, 8))


def test_call_goes_on_no_later_than_its_deadline(share: Share) -> None:
    """It ends with DEADLINE_EXCEEDED, and the turns of the others are as before."""
    with resuming(share, seconds=0.2) as call:
        assert isinstance(call.exception(SECONDS), DeadlineExceeded)
        assert share._in_progress == 1
        share.release()
    with within(SECONDS), on_turn(share):
        assert share._in_progress == 1


def test_call_goes_on_when_its_caller_is_alone(share: Share, beside: Beside) -> None:
    """It has the second turn without that the first is given back."""
    with resuming(share) as call:
        beside.left = True
        call.result(SECONDS)
    assert share._in_progress == 1


def test_calls_that_wait_are_refused_when_the_server_stops(share: Share, stopping: threading.Event) -> None:
    """One that waits to begin and one that waits to go on; further ones at once. One that finds a turn is served."""
    with resuming(share) as call, ThreadPoolExecutor(1) as threads:
        beginning = threads.submit(share.begin)
        Service.wait_until(lambda: share._begins)
        stopping.set()
        assert isinstance(call.exception(SECONDS), ServerStopping)
        assert isinstance(beginning.exception(SECONDS), ServerStopping)
        with pytest.raises(ServerStopping):
            share.begin()
        share.release()
    with on_turn(share):
        assert share._in_progress == 1


def test_metered_call_goes_on_when_the_server_stops(
    share: Share, stopping: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for no debt then."""
    monkeypatch.setattr(module, "MOST_DEBT_SECONDS", 10 * SECONDS)
    share.spend(100)
    stopping.set()
    begin = time.monotonic()
    share.wait_until_paid()
    assert time.monotonic() - begin < SECONDS


def test_uploads_and_downloads_of_an_identity_are_metered(stopping: threading.Event) -> None:
    """By what each item took; those of callers without identity are not."""
    calls = LongCalls(ShortCalls(16, stopping), limit=4, per_caller=4, seconds=60, idle_seconds=60)

    def work(items: int) -> Iterator[int]:
        for item in range(items):
            until = time.thread_time() + 0.02
            while time.thread_time() < until:
                pass
            yield item

    for identity, metered in (("team", True), ("", False)):
        one: Any = SimpleNamespace(is_active=lambda: True, peer=lambda: "ipv4:10.0.0.1:1000")
        with calls.admitted(identity, one) as call:
            before = call.share._due
            assert list(calls.responses(call, work(3))) == [0, 1, 2]
            assert list(calls.requests(call, work(3))) == [0, 1, 2]
            assert call.share._due > before
            assert call.share._metered is metered


def test_response_is_made_after_the_time_of_earlier_ones_is_paid(
    share: Share, monkeypatch: pytest.MonkeyPatch, stopping: threading.Event
) -> None:
    """So that it is sent as soon as it is made."""
    calls = LongCalls(ShortCalls(16, stopping), limit=4, per_caller=4, seconds=60, idle_seconds=60)
    monkeypatch.setattr(calls._short_calls, "share_of_long_calls", lambda identity: share)
    share.spend(0.5125)
    paid, made = share._due, list[float]()

    def watch() -> Iterator[int | None]:
        yield None
        made.append(time.monotonic())
        share.spend(5)
        yield 1

    one: Any = SimpleNamespace(is_active=lambda: True, peer=lambda: "ipv4:10.0.0.1:1000")
    with calls.admitted("team", one) as call:
        assert next(calls.responses(call, watch())) == 1
    assert paid <= made[0]
    assert time.monotonic() - made[0] < module.MOST_DEBT_SECONDS
