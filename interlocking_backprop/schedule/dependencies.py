"""What must have happened before an action can run: one place for the validator, the simulator and the scheduler."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from interlocking_backprop.common.checks import check_whole
from interlocking_backprop.schedule.action import PASSES, Action, Kind
from interlocking_backprop.scheme.streams import Pass, Workload


@dataclass(frozen=True)
class Dependencies:
    """The actions of one step and the order that they force on one another.

    Attributes:
        workload: the scheme and the network.
        n_microbatches: M.
        placement: for each component its rank. Neighbours on one rank hand over without a message.
        split: the components whose joint backward pass ``B`` is carried out as ``I`` and ``W``.

    Raises:
        ValueError: if there are no micro-batches, or the placement is impossible.
    """

    workload: Workload
    n_microbatches: int
    placement: tuple[int, ...]
    split: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        check_whole("n_microbatches", self.n_microbatches)
        placement, k = list(self.placement), self.workload.n_components
        if len(placement) != k:
            raise ValueError(f"the placement names {len(placement)} components, the scheme has {k}.")
        if placement != sorted(placement) or set(placement) != set(range(placement[-1] + 1)):
            raise ValueError(
                f"the placement is {placement}; expected every rank to hold neighbouring components, in ascending "
                "order, and none to be empty."
            )

    def crosses(self, i: int) -> bool:
        """Whether components i and i + 1 are on different ranks."""
        return i + 1 < len(self.placement) and self.placement[i] != self.placement[i + 1]

    def channel(self, receive: Action) -> tuple[int, int, Kind]:
        """The way that a message takes: from which rank, to which, and whether up or down.

        The messages of a channel are received in the order in which they are sent.
        """
        return self.placement[receive.other_end.component], self.placement[receive.component], receive.kind

    def n_messages(self, action: Action) -> int:
        """How many messages an action sends to other ranks."""
        if action.kind is Kind.REDUCE_GRAD:
            return len(self.receivers(action.component))
        if action.kind is Kind.GIVE:
            return len(self.copiers(action.component))
        return int(action.kind in (Kind.SEND_F, Kind.SEND_B))

    def backward_pass(self, action: Action) -> Pass:
        """The pass that an ``I``, ``W`` or ``B`` action carries out, wholly or in part."""
        work = self.workload.components[action.component]
        found = work.weight_pass if action.stream is None else work.input_pass(action.stream)
        assert found is not None
        return found

    def owed(self) -> Iterator[Action]:
        """All actions of a step, messages included, component by component."""
        for i, work in enumerate(self.workload.components):
            for m in range(self.n_microbatches):
                yield from self.compute(i, m)
                yield from self._messages(i, m)
            if i in self.workload.sharers(i):
                yield Action(i, Kind.REDUCE_GRAD)
            if work.updates:
                yield Action(i, Kind.UPDATE)
        for i in dict.fromkeys(source for source, _ in self.workload.copies):
            yield Action(i, Kind.GIVE)
        for _, i in self.workload.copies:
            yield Action(i, Kind.COPY)

    def compute(self, i: int, m: int) -> list[Action]:
        """What component i computes for micro-batch m."""
        return [Action(i, kind, m, stream) for kind, stream in self._computed[i]]

    @cached_property
    def _computed(self) -> list[list[tuple[Kind, int | None]]]:
        """What each component computes for a micro-batch: kinds and streams."""
        found: list[list[tuple[Kind, int | None]]] = []
        for i, work in enumerate(self.workload.components):
            found.append([])
            if work.is_idle:
                continue
            found[i].append((Kind.FORWARD, None))
            if work.evaluates_exit:
                found[i].append((Kind.EXIT, None))
            if work.computes_loss:
                found[i].append((Kind.LOSS, None))
            for p in work.passes:
                if p.kind == "B" and i in self.split:
                    found[i] += [(Kind.BACKWARD_INPUT, p.stream), (Kind.BACKWARD_WEIGHT, None)]
                else:
                    found[i].append((Kind(p.kind), p.stream))
        return found

    def _messages(self, i: int, m: int) -> Iterator[Action]:
        """The messages between components i and i + 1, both ends."""
        if self.crosses(i) and not self.workload.components[i + 1].is_idle:
            yield Action(i, Kind.SEND_F, m)
            yield Action(i + 1, Kind.RECV_F, m)
            for s in range(len(self.workload.components[i + 1].streams)):
                yield Action(i + 1, Kind.SEND_B, m, s)
                yield Action(i, Kind.RECV_B, m, s)

    def prerequisites(self, action: Action) -> list[Action]:
        """The actions that must have ended before this one begins; a receive waits for its send."""
        i, kind, m, s = action
        if kind in PASSES:
            source = self.backward_pass(action).source
            needed = [Action(i, Kind.LOSS if source.loss else Kind.FORWARD, m)]
            for stream, _ in source.streams:
                arrives = Action(i, Kind.RECV_B, m, stream)
                needed.append(arrives if self.crosses(i) else self._yields_stream(i + 1, m, stream))
            return needed
        if kind is Kind.FORWARD:
            if i == 0:
                return []
            return [Action(i, Kind.RECV_F, m) if self.crosses(i - 1) else Action(i - 1, Kind.FORWARD, m)]
        if kind in (Kind.LOSS, Kind.EXIT, Kind.SEND_F):
            return [Action(i, Kind.FORWARD, m)]
        if kind in (Kind.RECV_F, Kind.RECV_B):
            return [action.other_end]
        if kind is Kind.SEND_B:
            assert s is not None
            return [self._yields_stream(i, m, s)]
        if kind is Kind.REDUCE_GRAD:
            weight: tuple[Kind, ...] = (Kind.BACKWARD_WEIGHT, Kind.FULL_BACKWARD)
            weight += (Kind.LOSS,) if any(i in tie for tie in self.workload.head_ties) else ()
            return [a for m in range(self.n_microbatches) for a in self.compute(i, m) if a.kind in weight]
        if kind in (Kind.GIVE, Kind.COPY):
            return self._before_copies(i, kind)
        # An update.
        together = self.workload.updates == "together"
        awaited = range(self.workload.n_components) if together else [i]
        needed = [a for j in awaited for m in range(self.n_microbatches) for a in self.compute(j, m)]
        sharers = sorted({k for j in awaited for k in self.workload.sharers(j)})
        return needed + [Action(j, Kind.REDUCE_GRAD) for j in sharers]

    def receivers(self, i: int) -> list[int]:
        """The components on other ranks to which component i sends its gradients of the weights that they share."""
        return [j for j in self.workload.receivers(i) if self.placement[j] != self.placement[i]]

    def copiers(self, i: int) -> list[int]:
        """The components on other ranks whose heads copy weights of component i."""
        return [j for source, j in self.workload.copies if source == i and self.placement[j] != self.placement[i]]

    def _before_copies(self, i: int, kind: Kind) -> list[Action]:
        """Weights are given when their component has done with them; a copy is refreshed when its losses are there."""
        all_of_step = [a for m in range(self.n_microbatches) for a in self.compute(i, m)]
        if kind is Kind.GIVE:
            return [Action(i, Kind.UPDATE)] if self.workload.components[i].updates else all_of_step
        given = [Action(source, Kind.GIVE) for source, target in self.workload.copies if target == i]
        return given + [a for a in all_of_step if a.kind is Kind.LOSS]

    def _yields_stream(self, i: int, m: int | None, stream: int) -> Action:
        return Action(i, self._stream_kinds[i][stream], m, stream)

    @cached_property
    def _stream_kinds(self) -> list[dict[int, Kind]]:
        """For each component the kind of action that yields a stream."""
        return [{stream: kind for kind, stream in computed if stream is not None} for computed in self._computed]
