"""What one caller has of a server process: turns for its short calls, and time of a processor."""

import threading
import time
from collections import deque
from math import inf
from operator import itemgetter

from bots_server.errors import ServerStopping
from bots_server.store import remaining

# Threads share the interpreter, so each call in progress slows every other one. A caller that is alone has two short
# calls in progress: one computes while the other waits for Redis. Beside other callers it has one. If more of its calls
# wait, it has the share SHARE of a processor over WINDOW_SECONDS: a caller that floods leaves the rest to the others.
IN_PROGRESS_ALONE = 2
SHARE = 1 / 8
WINDOW_SECONDS = 4.0
MOST_DEBT_SECONDS = 2.0  # that a call waits, at most, for what earlier ones took
PRESENCE = 100  # a caller counts as there for so many seconds for each that it takes: always from 1 % of a processor on
MOST_PRESENCE_SECONDS = 1.0  # after it took something
LOOK_SECONDS = 1.0  # in which a call that waits notices that the server stops


class Presence:
    """Which callers count as there: each in proportion to what it takes, so that a monitor costs the others little."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until: dict[str, float] = {}  # on the monotonic clock; of the two that stay longest, which is enough

    def took(self, who: str, seconds: float) -> None:
        """Notes the seconds of a processor that a caller took."""
        now = time.monotonic()
        with self._lock:
            until = max(self._until.get(who, now), now) + PRESENCE * seconds
            those = self._until | {who: min(until, now + MOST_PRESENCE_SECONDS)}
            self._until = dict(sorted(those.items(), key=itemgetter(1))[-2:])

    def beside(self, who: str) -> float:
        """Returns for how many seconds another caller is there still; 0: the caller is alone."""
        until = max((until for other, until in self._until.items() if other != who), default=0.0)
        return max(0.0, until - time.monotonic())


class Share:
    """What one caller has of the server: how many short calls, turns for those in progress, and time of a processor.

    The time is metered by the generic cell rate algorithm (ITU-T I.371): each second of a processor takes 1 / SHARE
    seconds, which a call may begin at most WINDOW_SECONDS ahead of. No call waits longer than MOST_DEBT_SECONDS, so
    calls that take t seconds in their turns and c in all, off them and in the background too, have at most the larger
    of SHARE and c / (t + MOST_DEBT_SECONDS) of a processor: a quarter if c = t = 0.67.
    """

    def __init__(self, who: str, presence: Presence, stopping: threading.Event, *, metered: bool) -> None:
        """
        who:      the caller
        stopping: set when the server drains
        metered:  whether the caller's time is bounded
        """
        self.calls = 0
        self._who, self._presence, self._stopping, self._metered = who, presence, stopping, metered
        self._lock = threading.Lock()
        self._begins: deque[threading.Condition] = deque()  # of calls that wait to begin, in their order
        self._resumes = threading.Condition(self._lock)
        self._in_progress = self._resuming = 0
        self._due = 0.0  # on the monotonic clock: when the time that was taken is paid

    def begin(self) -> None:
        with self._lock:
            if self._begins or self._wait() > 0:
                self._begin_in_order()
            self._in_progress += 1

    def _begin_in_order(self) -> None:
        if self._stopping.is_set():
            raise ServerStopping
        self._begins.append(own := threading.Condition(self._lock))
        try:
            while (seconds := self._wait() if self._begins[0] is own else inf) > 0:
                self._sleep(own, seconds)
        finally:
            self._begins.remove(own)
            self._notify()

    def resume(self) -> None:
        with self._lock:
            self._resuming += 1
            try:
                while not self._has_turn():
                    self._sleep(self._resumes, inf)
            finally:  # if it raises, the call ends, and releases a turn that it did not have
                self._resuming -= 1
                self._in_progress += 1
                self._notify()

    def release(self) -> None:
        with self._lock:
            self._in_progress -= 1
            self._notify()

    def end_call(self) -> None:
        """Counts a call less. If one is left, it need not wait for what earlier ones took."""
        with self._lock:
            self.calls -= 1
            self._notify()

    def _sleep(self, turn: threading.Condition, seconds: float) -> None:
        """Waits until there may be a turn. Raises DeadlineExceeded, and ServerStopping if none came for a while."""
        if not turn.wait(min(seconds, remaining() or inf, self._beside() or LOOK_SECONDS)) and self._stopping.is_set():
            raise ServerStopping

    def _notify(self) -> None:
        """Has the next waiting call look for a turn: one that goes on, else the first that begins."""
        if self._resuming:
            self._resumes.notify()
        elif self._begins:
            self._begins[0].notify()

    def debt(self) -> float:
        """Returns the seconds until the time that was taken is paid; 0 for a caller that is alone."""
        return max(0.0, self._due - time.monotonic()) if self._metered and self._beside() else 0.0

    def wait_until_paid(self) -> None:
        """Waits until the time that was taken is paid, or the server stops."""
        self._stopping.wait(self.debt())

    def spend(self, seconds: float) -> None:
        """Takes seconds of a processor."""
        self._presence.took(self._who, seconds)
        with self._lock:
            now = time.monotonic()
            self._due = min(max(self._due, now - WINDOW_SECONDS) + seconds / SHARE, now + MOST_DEBT_SECONDS)

    def _wait(self) -> float:
        """Returns the seconds until a call may begin; infinite: until another one gives its turn."""
        if self._resuming or not self._has_turn():
            return inf
        return self.debt() if self.calls > 1 else 0.0

    def _has_turn(self) -> bool:
        return self._in_progress < (1 if self._beside() else IN_PROGRESS_ALONE)

    def _beside(self) -> float:
        return self._presence.beside(self._who)
