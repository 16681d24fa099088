"""From the matrix to the passes: which vector-Jacobian products each component owes, and no others.

Component k wants the gradient of ``sum_j C[k, j] * loss_j``. Seen from the input of component i > k that is a linear
combination of the losses from i on, with the row tail ``C[k, i:]`` as coefficients. Everything that the components
below i want, at any age, is therefore spanned by their tails, and it suffices to send one gradient, a *stream*, for
each vector of a basis of that span. A pass through a component is a linear map of the gradient at its output, so fewer
streams than the rank of the tails cannot serve all of them: the number derived here is the least possible.

The basis consists of tails themselves, so that nothing is scaled or added for the usual schemes:

    3-wise, K = 5                 loss:  0  1  2  3  4
      tails at the input of 3:   k = 1            1  .     stream 0: loss 3
                                 k = 2            .  1     stream 1: loss 4
      own row of component 3:                     .  1     the same as stream 1: one joint backward pass

The derivation is section 1 of docs/design.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from interlocking_backprop.scheme.basis import Vector, basis_of, coordinates_in
from interlocking_backprop.scheme.coefficients import Scheme


@dataclass(frozen=True)
class Source:
    """A gradient at the output of component i, as a linear combination of what is at hand there.

    Attributes:
        loss: coefficient of the gradient of the component's own loss, ``d loss_i / d y_i``.
        streams: (index, coefficient) of the streams received from component i + 1, in ascending order.
    """

    loss: float
    streams: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Pass:
    """One backward pass through a component.

    Attributes:
        kind: "I" yields the gradient of the inputs, "W" that of the weights, "B" both at once.
        stream: index of the stream that the input gradient is; None for "W".
        source: the gradient at the output that it starts from.
        last_loss: the last loss that the source is made of, or the network's own if one of them asks for the network's
            output; the pass can run once the losses up to that component have been computed.
        weights: index of the weight gradient among those of the component; None for "I".
        uses: where the weight gradient goes: into the updates so many steps later, as (age, coefficient) in ascending
            order.
    """

    kind: Literal["I", "W", "B"]
    stream: int | None
    source: Source
    last_loss: int
    weights: int | None = None
    uses: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class ComponentWork:
    """What a component owes for each micro-batch, beside its forward pass.

    Attributes:
        streams: the coefficient vectors, over losses i … K-1, of the gradients that it sends to component i - 1.
        passes: its backward passes: input-gradient passes in the order of their streams, the weight-gradient or joint
            passes last.
        computes_loss: whether loss i is computed.
        updates: whether anything has to be updated after the step: main weights that receive a gradient, a head, or
            weights shared with a component that has a gradient for them.
        evaluates_exit: whether what comes out at its exit is evaluated.
        is_idle: whether not even a forward pass is owed: above the last exit of an evaluation.
    """

    streams: tuple[tuple[float, ...], ...]
    passes: tuple[Pass, ...]
    computes_loss: bool
    updates: bool
    evaluates_exit: bool = False
    is_idle: bool = False

    @property
    def uses_loss_gradient(self) -> bool:
        """Whether some pass starts from the gradient of loss i."""
        return any(p.source.loss != 0 for p in self.passes)

    @cached_property
    def weight_passes(self) -> tuple[Pass, ...]:
        """The passes that yield gradients of the main weights, in their order; none for a frozen component.

        There is one, unless credit of different ages differs in more than a factor.
        """
        return tuple(p for p in self.passes if p.kind != "I")

    def input_pass(self, stream: int) -> Pass:
        """The pass that yields a stream."""
        return self._input_passes[stream]

    @cached_property
    def _input_passes(self) -> dict[int, Pass]:
        return {p.stream: p for p in self.passes if p.stream is not None}


@dataclass(frozen=True)
class Workload:
    """A scheme, and what is known of the network that it is applied to.

    Attributes:
        scheme: the matrix.
        heads: for each component, whether its loss can be computed: a head for all but the last. A head
            that the scheme does not use is trained all the same, on its own loss.
        trainable: for each component, whether its main net has weights that want a gradient.
        ties: the components, in ascending order, of each group whose main nets share weights which want a gradient.
        is_evaluation: whether these are forward passes alone, and what comes out at the exits of the ``heads`` is
            evaluated; see `evaluation`.
        updates: when a component is updated: "apart", as soon as its own gradients are there; "together", when those of
            all components are; or not in this step ("none"), for its gradients are kept for a later one.
        carried: the components, in ascending order, at which credit of an earlier scheme arrives in this step.
        asking: the losses, in ascending order and but for the network's own, that ask for the network's output, and so
            wait for the last forward pass.
        head_ties: as ``ties``, of each group whose heads share weights.
        copies: (source, target) for each component whose head copies weights of another component in this step.

    Raises:
        ValueError: if the lengths differ, or the scheme uses a loss whose head is missing.
    """

    scheme: Scheme
    heads: tuple[bool, ...]
    trainable: tuple[bool, ...]
    ties: tuple[tuple[int, ...], ...] = ()
    is_evaluation: bool = False
    updates: Literal["apart", "together", "none"] = "apart"
    carried: tuple[int, ...] = ()
    asking: tuple[int, ...] = ()
    head_ties: tuple[tuple[int, ...], ...] = ()
    copies: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        k = self.scheme.n_components
        for name, flags in (("heads", self.heads), ("trainable", self.trainable)):
            if len(flags) != k:
                raise ValueError(f"{name} has {len(flags)} entries for {k} components.")
        uses = self.scheme.uses & np.array(self.trainable, dtype=bool)[:, None]
        for j in np.flatnonzero(uses.any(axis=0)):
            if not self.heads[j]:
                user = np.flatnonzero(uses[:, j])[0]
                raise ValueError(
                    f"scheme {self.scheme.name!r} trains component {user} with loss {j}, but head {j} is "
                    f"None; pass a head for component {j}, or a scheme whose column {j} is zero."
                )

    @classmethod
    def of(
        cls,
        scheme: Scheme,
        heads: Sequence[bool] | None = None,
        trainable: Sequence[bool] | None = None,
        ties: tuple[tuple[int, ...], ...] = (),
    ) -> Workload:
        """The workload of a scheme with a head wherever one is used, unless said otherwise."""
        k = scheme.n_components
        if heads is None:
            heads = [bool(scheme.uses[:, j].any()) for j in range(k - 1)] + [True]
        return cls(scheme, tuple(heads), tuple(trainable) if trainable is not None else (True,) * k, ties)

    @classmethod
    def evaluation(cls, exits: Sequence[bool]) -> Workload:
        """Forward passes alone, up to the last exit that is asked for.

        Args:
            exits: for each component, whether what comes out at its exit is evaluated.
        """
        k = len(exits)
        nothing = Scheme(np.zeros((k, k)), name="evaluation")
        return cls(nothing, tuple(exits), (False,) * k, is_evaluation=True)

    @property
    def n_components(self) -> int:
        return self.scheme.n_components

    @cached_property
    def joint(self) -> frozenset[int]:
        """The components in which one pass yields a stream and a weight gradient, for both start from the same."""
        return frozenset(i for i, work in enumerate(self.components) for p in work.passes if p.kind == "B")

    @cached_property
    def accumulating(self) -> Workload:
        """The same without updates."""
        return replace(self, updates="none")

    @property
    def max_delay(self) -> int:
        """The greatest age of a gradient that goes into an update; 0 where nothing is delayed."""
        return max((age for rows in self._rows for age, _ in rows), default=0)

    def delays(self, i: int) -> tuple[int, ...]:
        """The ages of the gradients that the main weights of component i follow; none if it is frozen."""
        return tuple(age for age, _ in self._rows[i])

    def sharers(self, i: int) -> list[int]:
        """The components, in ascending order, whose gradients weights of component i get, itself among them.

        The list is empty if it shares no weights, or none are updated.
        """
        if not (self.ties or self.head_ties):
            return []
        return [j for j in range(self.n_components) if i in self._held_by_receivers(j)]

    def receivers(self, i: int) -> list[int]:
        """The other components, in ascending order, that get gradients from component i for weights that they share."""
        return sorted(self._held_by_receivers(i) - {i})

    def gives(self, i: int, *, of_heads: bool) -> bool:
        """Whether component i has a gradient for weights that its main net, or its head, shares with others."""
        return self.updates != "none" and (of_heads or bool(self._rows[i]) or i in self.carried)

    def _held_by_receivers(self, i: int) -> set[int]:
        main = self.ties if self.gives(i, of_heads=False) else ()
        heads = self.head_ties if self.gives(i, of_heads=True) else ()
        return {j for tie in (*main, *heads) if i in tie for j in tie}

    @cached_property
    def _rows(self) -> list[list[tuple[int, Vector]]]:
        """For each component the rows that are not zero, by age; none for a component without weights to train."""
        by_age = [(0, self.scheme.matrix), *self.scheme.delayed.items()]
        rows = [(age, matrix.tolist()) for age, matrix in by_age]
        return [
            [(age, tuple(matrix[i])) for age, matrix in rows if any(matrix[i])] if is_trainable else []
            for i, is_trainable in enumerate(self.trainable)
        ]

    @cached_property
    def components(self) -> tuple[ComponentWork, ...]:
        """The work of each component."""
        k = self.n_components
        if self.is_evaluation:
            return tuple(
                ComponentWork((), (), False, False, evaluates_exit=self.heads[i], is_idle=not any(self.heads[i:]))
                for i in range(k)
            )
        works: list[ComponentWork] = []
        for i in reversed(range(k)):
            works.insert(0, self._work(i, works[0] if works else None))
        return tuple(works)

    def _work(self, i: int, above: ComponentWork | None) -> ComponentWork:
        """The work of component i, which receives the streams of the component above."""
        rows = [(age, row[i:]) for age, row in self._rows[i]]
        own = basis_of([row for _, row in rows])
        streams = basis_of([row[i:] for below in self._rows[:i] for _, row in below], own)

        def backward_pass(kind: Literal["I", "W", "B"], stream: int | None, tail: Vector) -> Pass:
            source = Source(tail[0], ())
            ends = [self.n_components - 1 if i in self.asking else i] if source.loss else []
            if above is not None:
                used = [(s, c) for s, c in enumerate(coordinates_in(tail[1:], above.streams)) if c != 0]
                source = Source(source.loss, tuple(used))
                ends += [above.input_pass(s).last_loss for s, _ in used]
            return Pass(kind, stream, source, max(ends))

        passes = [backward_pass("I", s, v) for s, v in enumerate(streams) if v not in own]
        ages = [(age, coordinates_in(row, tuple(own))) for age, row in rows]
        for n, vector in enumerate(own):
            joint = streams.index(vector) if vector in streams else None
            found = backward_pass("W" if joint is None else "B", joint, vector)
            uses = tuple((age, coordinates[n]) for age, coordinates in ages if coordinates[n])
            passes.append(replace(found, weights=n, uses=uses))
        return ComponentWork(
            streams=tuple(streams),
            passes=tuple(passes),
            computes_loss=above is None or self.heads[i],
            updates=self.updates != "none"
            and (bool(rows) or (above is not None and self.heads[i]) or bool(self.sharers(i)) or i in self.carried),
        )
