"""If one rank fails, all ranks end, and each says which one it was and why.

A rank that waits for a message sits in a system call and cannot be told anything. So each rank has a thread that looks
after it: it reads what failing ranks write into a store, says so, and ends the process if that does not end by itself.

- A rank that raises writes the cause, and lingers until the others have read it.
- A rank that is killed breaks its connections; its neighbours notice at once and write that.
- A rank that hangs in its own code lets the others wait. Whoever has waited for the timeout looks up who is not waiting
  but busy, for every rank writes down now and then what it is doing.
- Signals (SIGTERM from torchrun, Ctrl-C) reach the thread even while the rank waits.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from types import FrameType
from typing import Any

from torch.distributed import TCPStore  # type: ignore[attr-defined]

_FAILURE, _SEEN = "failure", "seen"
# Seconds between two looks at the store, between two beats, and until a process that should end is ended.
_POLL, _BEAT, _GRACE = 0.2, 1.0, 10.0

Activity = Callable[[], tuple[str, "tuple[int, float] | None"]]


class Watchdog:
    """Looks after one rank.

    Args:
        store: shared by all ranks; rank 0 serves it.
        rank: of this process.
        size: the number of ranks.
        timeout: how long a rank may wait for another.
        activity: says what the rank is doing, and for which rank it waits since when (`time.monotonic`), if it does.

    Attributes:
        failure: what ended the run, naming the rank; None as long as all is well.
    """

    def __init__(self, store: TCPStore, rank: int, size: int, timeout: timedelta, activity: Activity) -> None:
        self._store, self._rank, self._size = store, rank, size
        self._timeout = timeout.total_seconds()
        self._activity = activity
        self.failure: str | None = None
        self._failed_rank = -1
        self._closing = threading.Event()
        self._said = threading.Lock()
        self._n_beats = 0
        self._next_beat = 0.0
        self._neighbour: tuple[int, float] = (-1, time.monotonic())  # its last beat, and when it was seen
        self._signals = _Signals()
        self._thread = threading.Thread(target=self._watch, name="interlocking-backprop watchdog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the watch."""
        self._closing.set()
        self._thread.join()
        self._signals.close()

    def report(self, rank: int, cause: str) -> str:
        """Tells all ranks that one has failed, and lingers until they know.

        Args:
            rank: the one that failed.
            cause: what is known of it.

        Returns:
            The failure that was reported first, which is the one that counts.
        """
        own = json.dumps({"rank": rank, "cause": cause})
        try:
            self._note(self._store.compare_set(_FAILURE, "", own))
            end = time.monotonic() + 3
            while self._store.add(_SEEN, 0) < self._size and time.monotonic() < end:
                time.sleep(0.02)
        except RuntimeError:  # the store is gone, and rank 0 with it
            self._note(own)
        assert self.failure is not None
        return self.failure

    def leave(self) -> None:
        """Says that this rank is done, and waits until all are: a run is well only if all of it is."""
        with contextlib.suppress(RuntimeError):
            n = self._store.add("left", 1)
            while n < self._size and self.failure is None:
                time.sleep(0.02)
                n = self._store.add("left", 0)
        self._closing.set()
        if self._rank == 0 and self.failure is None:
            time.sleep(0.2)  # it serves the store, from which the others are about to read the same

    def wait_for_cause(self, seconds: float = 1.0) -> str | None:
        """The failure, if somebody reports one soon."""
        end = time.monotonic() + seconds
        while self.failure is None and time.monotonic() < end:
            time.sleep(0.02)
        return self.failure

    def _note(self, text: bytes | str) -> None:
        """Says what happened and then lets it be known in this process, which may end at once for it."""
        fields = json.loads(text)
        with self._said:
            if self.failure is None:
                failure = f"rank {fields['rank']} failed: {fields['cause']}"
                self._say(failure)
                self._failed_rank = fields["rank"]
                self.failure = failure

    def _watch(self) -> None:
        while not self._closing.is_set():
            if self._signals.wait(_POLL):
                self._end_by_signal()
            try:
                self._look()
            except RuntimeError:
                if not self._closing.is_set():
                    self._note(json.dumps({"rank": 0, "cause": "the connection to its process is lost"}))
            if self.failure is not None:
                self._end()
                return

    def _look(self) -> None:
        if self._store.check([_FAILURE]):
            self._note(self._store.get(_FAILURE))
            self._store.add(_SEEN, 1)
            return
        now = time.monotonic()
        if now < self._next_beat:
            return
        self._next_beat = now + _BEAT
        self._n_beats += 1
        doing, waiting = self._activity()
        beat = {"n": self._n_beats, "doing": doing, "waits": waiting is not None}
        self._store.set(f"beat/{self._rank}", json.dumps(beat))
        if waiting is not None and now - waiting[1] > self._timeout:
            self.report(*self._culprit(*waiting, now))
        neighbour = (self._rank + 1) % self._size
        n = (self._beat_of(neighbour) or {"n": -1})["n"]
        if n != self._neighbour[0]:
            self._neighbour = (n, now)
        elif now - self._neighbour[1] > max(self._timeout, 30):
            self.report(neighbour, f"no sign of life for {now - self._neighbour[1]:.0f} s; its machine may be lost")

    def _culprit(self, peer: int, since: float, now: float) -> tuple[int, str]:
        """Who keeps this rank waiting: a rank that does not wait itself."""
        waited = f"rank {self._rank} has waited {now - since:.0f} s for rank {peer} (timeout {self._timeout:g} s)"
        for rank in range(self._size):
            beat = self._beat_of(rank)
            if rank != self._rank and beat is not None and not beat["waits"]:
                return rank, f"it hangs in {beat['doing']}; {waited}"
        return peer, f"all ranks wait for one another; {waited}"

    def _beat_of(self, rank: int) -> dict[str, Any] | None:
        key = f"beat/{rank}"
        beat: dict[str, Any] | None = json.loads(self._store.get(key)) if self._store.check([key]) else None
        return beat

    def _end(self) -> None:
        """Sees to it that the process ends."""
        # Should the interpreter itself get stuck on its way out.
        faulthandler.dump_traceback_later(3 * _GRACE, exit=True)
        _, waiting = self._activity()
        is_stuck = waiting is not None or self._failed_rank == self._rank
        if not self._closing.wait(_GRACE / 5 if is_stuck else _GRACE):
            self._say("ending this process, which has not ended by itself; it was here:")
            faulthandler.dump_traceback()
            os._exit(1)

    def _end_by_signal(self) -> None:
        number = self._signals.read()
        if number is None:
            return
        # Another rank may have failed, and torchrun be ending this one for it: the cause is worth a moment, in which
        # the main thread may find that its neighbour is gone. It is longer than `wait_for_cause` lets others wait
        # before they report, and well within the 30 s after which torchrun kills.
        end = time.monotonic() + 5
        while self.failure is None and time.monotonic() < end and not self._closing.is_set():
            with contextlib.suppress(RuntimeError):
                if self._store.check([_FAILURE]):
                    self._note(self._store.get(_FAILURE))
            time.sleep(0.02)
        if self.failure is None and not self._closing.is_set():
            self._say(f"ended by {signal.Signals(number).name}")
            os._exit(128 + number)

    def _say(self, text: str) -> None:
        print(f"[rank {self._rank}] interlocking-backprop: {text}", file=sys.stderr, flush=True)


class _Signals:
    """Lets a thread know of SIGTERM and SIGINT, which the main thread learns of only when it gets to run Python code.

    Handlers that somebody else has set stay in charge. Outside the main thread nothing is listened to.
    """

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._reader, selectors.EVENT_READ)
        self._writer.setblocking(False)
        self._before: int | None = None
        if threading.current_thread() is threading.main_thread():
            self._before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
            if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                signal.signal(signal.SIGTERM, _left_to_watchdog)

    def wait(self, seconds: float) -> bool:
        """Whether a signal came in that time."""
        return bool(self._selector.select(seconds))

    def read(self) -> int | None:
        """The signal that came, if it is one that ends the process."""
        for number in self._reader.recv(64):
            if number in (signal.SIGTERM, signal.SIGINT):
                handler = signal.getsignal(number)
                if handler in (_left_to_watchdog, signal.default_int_handler):
                    return number
        return None

    def close(self) -> None:
        if self._before is not None and threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(self._before)
            if signal.getsignal(signal.SIGTERM) is _left_to_watchdog:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._selector.close()
        self._reader.close()
        self._writer.close()


def _left_to_watchdog(number: int, frame: FrameType | None) -> None:
    """The main thread goes on for the moment that it takes to find out why it is to end."""
