"""All ranks end if one of them fails, and each says which one it was and why."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from datetime import timedelta
from multiprocessing.util import Finalize
from typing import Any

from interlocking_backprop.engine.executor import Executor
from interlocking_backprop.transport.agreement import serve_store
from interlocking_backprop.transport.channels import Channels, PeerLost, RankFailedError
from interlocking_backprop.transport.process_groups import World
from interlocking_backprop.transport.watchdog import Watchdog

_OUTSIDE = "code outside of the model"


class Guard:
    """Knows what this rank is doing, tells the others if it fails, and ends it if they do.

    Args:
        world: the ranks.
        channels: of this one.
        timeout: how long a rank may wait for another.
    """

    def __init__(self, world: World, channels: Channels, timeout: timedelta) -> None:
        self._rank, self._size = world.rank, world.size
        self._channels: Channels | None = channels
        self._doing = _OUTSIDE
        self._executor: Executor | None = None
        self._is_open = True
        self._store = serve_store(world)
        self._watchdog = Watchdog(self._store, world.rank, world.size, timeout, self._activity)
        # Not atexit: children of multiprocessing end without it.
        self._at_exit = Finalize(None, self._leave, exitpriority=10)

    @property
    def is_open(self) -> bool:
        """Whether the run goes on."""
        return self._is_open

    @property
    def has_failed(self) -> bool:
        """Whether a rank has failed."""
        return self._watchdog.failure is not None

    @contextlib.contextmanager
    def doing(self, call: str) -> Iterator[None]:
        """A context in which the ranks need one another.

        Args:
            call: of the model's methods the one that all ranks have called.

        Raises:
            RankFailedError: if another rank has failed.
        """
        if not self._is_open or self._watchdog.failure is not None:
            raise RankFailedError(self._watchdog.failure or "model.shutdown() has been called")
        self._doing = call
        try:
            yield
        except PeerLost as lost:
            cause = "its process has ended, or its machine is lost"
            failure = self._watchdog.wait_for_cause() or self._watchdog.report(lost.rank, cause)
            raise RankFailedError(f"{failure} ({lost})") from None
        except BaseException as error:
            place = f" (in {self._executor.current})" if self._executor and self._executor.current else ""
            self._watchdog.report(self._rank, f"{type(error).__name__}: {error}{place}")
            raise
        finally:
            self._doing = _OUTSIDE

    def watch(self, executor: Executor) -> None:
        """From now on this executor knows which action is being carried out."""
        self._executor = executor

    def post(self, key: str, value: Any) -> None:
        """Leaves a value for `collect`; nobody waits."""
        self._store.set(f"post/{key}/{self._rank}", json.dumps(value))

    def collect(self, key: str) -> list[Any] | None:
        """What every rank has left under a key; None if some have not yet."""
        keys = [f"post/{key}/{rank}" for rank in range(self._size)]
        if not self._store.check(keys):
            return None
        values = [json.loads(self._store.get(k)) for k in keys]
        for k in keys:
            self._store.delete_key(k)
        return values

    def close(self) -> None:
        """The run has ended."""
        self._is_open = False
        self._at_exit.cancel()
        self._watchdog.close()
        self._executor = self._channels = None

    def _activity(self) -> tuple[str, tuple[int, float] | None]:
        action = self._executor.current if self._executor is not None else None
        waiting = self._channels.waiting if self._channels is not None else None
        return f"{self._doing}, action {action}" if action else self._doing, waiting

    def _leave(self) -> None:
        """At the end of a process that has not called `close`: an error is reported, sends are completed."""
        error = getattr(sys, "last_value", None)
        if error is not None and self._watchdog.failure is None:
            self._watchdog.report(self._rank, f"{type(error).__name__}: {error} (outside of the model)")
        if self._watchdog.failure is None and self._channels is not None:
            with contextlib.suppress(PeerLost):
                self._channels.flush()
            self._watchdog.leave()
        if self._watchdog.failure is not None:
            os._exit(1)  # this process has done its part, but the run has failed
