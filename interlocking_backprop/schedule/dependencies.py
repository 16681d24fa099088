"""What must have happened before an action can run: one place for the validator, the simulator and the scheduler.

Where a scheme delays credit, a step carries out passes of earlier batches, each with an age: how many steps ago its
batch was. What such a pass needs may have happened in an earlier step; how many steps before is the difference of ages.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from interlocking_backprop.common.checks import check_whole
from interlocking_backprop.schedule.action import PASSES, RECEIVES, SENDS, Action, Kind
from interlocking_backprop.schedule.ages import PassAges
from interlocking_backprop.scheme.streams import Pass, Workload


@dataclass(frozen=True)
class Dependencies:
    """The actions of one step and the order that they force on one another.

    Attributes:
        workload: the scheme and the network.
        n_microbatches: M.
        placement: for each component its rank. Neighbours on one rank hand over without a message.
        split: the components whose joint backward passes ``B`` are carried out as ``I`` and ``W``.
        ages: of the passes of each component; by default every pass belongs to the batch of the step.

    Raises:
        ValueError: if there are no micro-batches, or the placement is impossible.
    """

    workload: Workload
    n_microbatches: int
    placement: tuple[int, ...]
    split: frozenset[int] = frozenset()
    ages: tuple[PassAges, ...] = ()

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
        source = receive.component + (-1 if receive.kind is Kind.RECV_F else 1)
        return self.placement[source], self.placement[receive.component], receive.kind

    def other_end(self, action: Action) -> Action:
        """The receive that belongs to a send, or the send that belongs to a receive."""
        end = action.other_end
        if end.kind is Kind.SEND_B:
            return end._replace(age=self._input_age(end.component, end.stream))
        return end._replace(age=self._arrival_age(end.component, end.stream)) if end.kind is Kind.RECV_B else end

    def steps_before(self, action: Action, needed: Action) -> int:
        """How many steps before an action the prerequisite is carried out; 0 if it is in the same step."""
        return 0 if action.microbatch is None else action.age - needed.age

    def n_messages(self, action: Action) -> int:
        """How many messages an action sends to other ranks."""
        if action.kind is Kind.REDUCE_GRAD:
            return len(self.receivers(action.component))
        if action.kind is Kind.GIVE:
            return len(self.copiers(action.component))
        return int(action.kind in SENDS)

    def backward_pass(self, action: Action) -> Pass:
        """The pass that an ``I``, ``W`` or ``B`` action carries out, wholly or in part."""
        work = self.workload.components[action.component]
        if action.kind is Kind.BACKWARD_WEIGHT:
            return work.weight_passes[action.stream or 0]
        assert action.stream is not None
        return work.input_pass(action.stream)

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
        return list(self._compute[i][m])

    @cached_property
    def _compute(self) -> list[list[list[Action]]]:
        """What each component computes for each micro-batch."""
        return [
            [[Action(i, kind, m, stream, age) for kind, stream, age in computed] for m in range(self.n_microbatches)]
            for i, computed in enumerate(self._computed)
        ]

    @cached_property
    def _computed(self) -> list[list[tuple[Kind, int | None, int]]]:
        """What each component computes for a micro-batch: kinds, streams and ages."""
        found: list[list[tuple[Kind, int | None, int]]] = []
        for i, work in enumerate(self.workload.components):
            found.append([])
            if work.is_idle:
                continue
            found[i].append((Kind.FORWARD, None, 0))
            if work.evaluates_exit:
                found[i].append((Kind.EXIT, None, 0))
            if work.computes_loss:
                found[i].append((Kind.LOSS, None, 0))
            for p in work.passes:
                is_split = p.kind == "B" and i in self.split
                if p.stream is not None:
                    kind = Kind.BACKWARD_INPUT if is_split else Kind(p.kind)
                    found[i].append((kind, p.stream, self._input_age(i, p.stream)))
                if p.kind == "W" or is_split:
                    age = self.ages[i].weights[p.weights or 0] if self.ages else 0
                    found[i].append((Kind.BACKWARD_WEIGHT, p.weights or None, age))
        return found

    def _input_age(self, i: int, stream: int | None) -> int:
        return self.ages[i].inputs[stream or 0] if self.ages else 0

    def _arrival_age(self, i: int, stream: int | None) -> int:
        """Of a stream that component i receives: that of the first pass that needs it."""
        return self._arrival_ages[i][stream or 0] if self.ages else 0

    @cached_property
    def _arrival_ages(self) -> list[dict[int, int]]:
        """For each component the ages at which the streams from above are needed."""
        found: list[dict[int, int]] = []
        for i, work in enumerate(self.workload.components):
            found.append({})
            for p in work.passes:
                # The first half of a joint pass needs it, if it is carried out in two.
                age = self._input_age(i, p.stream) if p.stream is not None else self.ages[i].weights[p.weights or 0]
                for stream, _ in p.source.streams:
                    found[i][stream] = min(age, found[i].get(stream, age))
        return found

    def _messages(self, i: int, m: int) -> Iterator[Action]:
        """The messages between components i and i + 1, and those from the last component, both ends."""
        if self.crosses(i) and not self.workload.components[i + 1].is_idle:
            yield Action(i, Kind.SEND_F, m)
            yield Action(i + 1, Kind.RECV_F, m)
            for s in range(len(self.workload.components[i + 1].streams)):
                yield Action(i + 1, Kind.SEND_B, m, s, self._input_age(i + 1, s))
                yield Action(i, Kind.RECV_B, m, s, self._arrival_age(i, s))
        if i + 1 == self.workload.n_components:
            for receiver in sorted(self.output_receivers.values()):
                yield Action(i, Kind.SEND_Y, m, receiver)
                yield Action(receiver, Kind.RECV_Y, m, i)

    @cached_property
    def output_receivers(self) -> dict[int, int]:
        """By rank, but for the last, the component that receives the network's output for the losses there that ask."""
        placement = self.placement
        return {placement[i]: i for i in reversed(self.workload.asking) if placement[i] != placement[-1]}

    def prerequisites(self, action: Action) -> list[Action]:
        """The actions that must have ended before this one begins; a receive waits for its send.

        Some of them are in earlier steps: see `steps_before`.
        """
        i, kind, m, s, _ = action
        if kind in PASSES:
            source = self.backward_pass(action).source
            needed = [Action(i, Kind.LOSS if source.loss else Kind.FORWARD, m)]
            for stream, _ in source.streams:
                arrives = Action(i, Kind.RECV_B, m, stream, self._arrival_age(i, stream))
                needed.append(arrives if self.crosses(i) else self._yields_stream(i + 1, m, stream))
            return needed
        if kind is Kind.FORWARD:
            if i == 0:
                return []
            return [Action(i, Kind.RECV_F, m) if self.crosses(i - 1) else Action(i - 1, Kind.FORWARD, m)]
        if kind is Kind.LOSS and i in self.workload.asking:
            last, receiver = self.workload.n_components - 1, self.output_receivers.get(self.placement[i])
            at_hand = Action(last, Kind.FORWARD, m) if receiver is None else Action(receiver, Kind.RECV_Y, m, last)
            return [Action(i, Kind.FORWARD, m), at_hand]
        if kind in (Kind.LOSS, Kind.EXIT, Kind.SEND_F, Kind.SEND_Y):
            return [Action(i, Kind.FORWARD, m)]
        if kind in RECEIVES:
            return [self.other_end(action)]
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
        computed = (a for j in self.awaited(i) for m in range(self.n_microbatches) for a in self.compute(j, m))
        return [*computed, *self.reductions(i)]

    def awaited(self, i: int) -> Sequence[int]:
        """The components all of whose computing the update of component i waits for."""
        return range(self.workload.n_components) if self.workload.updates == "together" else [i]

    def reductions(self, i: int) -> list[Action]:
        """The exchanges of gradients that the update of component i waits for."""
        sharers = sorted({k for j in self.awaited(i) for k in self.workload.sharers(j)})
        return [Action(j, Kind.REDUCE_GRAD) for j in sharers]

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
        return Action(i, self._stream_kinds[i][stream], m, stream, self._input_age(i, stream))

    @cached_property
    def _stream_kinds(self) -> list[dict[int, Kind]]:
        """For each component the kind of action that yields a stream."""
        return [
            {stream: kind for kind, stream, _ in computed if stream is not None and kind is not Kind.BACKWARD_WEIGHT}
            for computed in self._computed
        ]
