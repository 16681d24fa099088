"""A schedule: for each rank, the ordered list of its actions. Plain data; it runs nothing."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from interlocking_backprop.common.atomic_files import write_text
from interlocking_backprop.schedule.action import Action, Kind
from interlocking_backprop.schedule.ages import ages_of
from interlocking_backprop.schedule.dependencies import Dependencies
from interlocking_backprop.scheme.coefficients import Scheme
from interlocking_backprop.scheme.streams import Workload

_FORMAT = 1


@dataclass(frozen=True)
class Schedule:
    """What every rank does in one training step, in which order.

    Attributes:
        workload: the scheme and the network that it is for.
        n_microbatches: M.
        placement: for each component the rank that holds it.
        actions: for each rank its actions, in the order in which it carries them out.
    """

    workload: Workload
    n_microbatches: int
    placement: tuple[int, ...]
    actions: tuple[tuple[Action, ...], ...]

    @property
    def n_components(self) -> int:
        return self.workload.n_components

    @property
    def n_ranks(self) -> int:
        return len(self.actions)

    @cached_property
    def dependencies(self) -> Dependencies:
        """The actions that are owed, and what each of them needs."""
        weights = {(a.component, a.stream) for _, a in self if a.kind is Kind.BACKWARD_WEIGHT}
        works = enumerate(self.workload.components)
        split = {i for i, work in works for p in work.passes if p.kind == "B" and (i, p.weights or None) in weights}
        ages = ages_of(self.workload, (action for _, action in self))
        return Dependencies(self.workload, self.n_microbatches, self.placement, frozenset(split), ages)

    def components_of(self, rank: int) -> list[int]:
        """The components that a rank holds, in ascending order."""
        return [i for i, owner in enumerate(self.placement) if owner == rank]

    def named_for(self, scheme: Scheme) -> Schedule:
        """The schedule of an equal scheme, under the name of this one."""
        if self.workload.scheme.name == scheme.name:
            return self
        return replace(self, workload=replace(self.workload, scheme=scheme))

    def __iter__(self) -> Iterator[tuple[int, Action]]:
        """All (rank, action) pairs, rank by rank."""
        return ((rank, action) for rank, actions in enumerate(self.actions) for action in actions)

    def __str__(self) -> str:
        return format_grid(self)

    def _repr_html_(self) -> str:
        """A picture for notebooks."""
        from interlocking_backprop.schedule.picture import schedule_picture

        return schedule_picture(self)

    def to_json(self) -> str:
        """The whole schedule as JSON text; `from_json` reads it back."""
        workload = self.workload
        fields: dict[str, Any] = {
            "format": _FORMAT,
            "scheme": _scheme_fields(workload.scheme),
            "heads": workload.heads,
            "trainable": workload.trainable,
            "ties": workload.ties,
            "is_evaluation": workload.is_evaluation,
            "updates": workload.updates,
            "carried": workload.carried,
            "asking": workload.asking,
            "head_ties": workload.head_ties,
            "copies": workload.copies,
            "n_microbatches": self.n_microbatches,
            "placement": self.placement,
            "actions": [[str(action) for action in actions] for actions in self.actions],
        }
        return json.dumps(fields, indent=1, default=int)  # the numbers may be numpy's

    @classmethod
    def from_json(cls, text: str) -> Schedule:
        """Reads what `to_json` wrote. It is not validated: call `validate` before running it.

        Raises:
            ValueError: if the text is not a schedule.
        """
        try:
            fields = json.loads(text)
            if fields["format"] != _FORMAT:
                raise ValueError(f"its format is {fields['format']!r}; this version reads format {_FORMAT}.")
            delayed = {int(age): matrix for age, matrix in fields["scheme"].get("delayed", {}).items()}
            scheme = Scheme(fields["scheme"]["matrix"], name=fields["scheme"]["name"], delayed=delayed)
            heads, trainable, ties = (
                tuple(fields["heads"]),
                tuple(fields["trainable"]),
                tuple(map(tuple, fields["ties"])),
            )
            return cls(
                workload=Workload(
                    scheme,
                    heads,
                    trainable,
                    ties,
                    fields.get("is_evaluation", False),
                    fields.get("updates", "apart"),
                    carried=tuple(fields.get("carried", ())),
                    asking=tuple(fields.get("asking", ())),
                    head_ties=tuple(map(tuple, fields.get("head_ties", ()))),
                    copies=tuple(map(tuple, fields.get("copies", ()))),
                ),
                n_microbatches=int(fields["n_microbatches"]),
                placement=tuple(fields["placement"]),
                actions=tuple(tuple(map(Action.from_str, actions)) for actions in fields["actions"]),
            )
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"this is not a schedule in JSON ({type(error).__name__}: {error}).") from None

    def to_csv(self) -> str:
        """The order alone, a line for each rank, as PyTorch's pipelining stores its schedules."""
        return "".join(",".join(map(str, actions)) + "\n" for actions in self.actions)

    def save(self, path: str | Path) -> None:
        """Writes the schedule: the order alone to a ``.csv`` file, everything as JSON to any other."""
        path = Path(path)
        write_text(path, self.to_csv() if path.suffix == ".csv" else self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Schedule:
        """Reads a schedule that was saved as JSON. For one in CSV see `with_order`.

        Raises:
            ValueError: if the file is not a schedule.
        """
        return cls.from_json(Path(path).read_text())

    def with_order(self, csv_text: str) -> Schedule:
        """The same schedule in another order, read from the text that `to_csv` writes (and a person may have edited).

        Raises:
            ValueError: if a cell is not an action.
            ScheduleError: if the order cannot run, as `validate` says it, with the place marked.
        """
        from interlocking_backprop.schedule.validate import validate

        lines = [line for line in csv_text.splitlines() if line.strip()]
        cells = [[cell for cell in line.split(",") if cell.strip()] for line in lines]
        actions = tuple(tuple(map(Action.from_str, row)) for row in cells)
        schedule = replace(self, actions=actions)
        validate(schedule)
        return schedule


def _scheme_fields(scheme: Scheme) -> dict[str, Any]:
    fields: dict[str, Any] = {"name": scheme.name, "matrix": scheme.matrix.tolist()}
    if scheme.delayed:
        fields["delayed"] = {str(age): matrix.tolist() for age, matrix in scheme.delayed.items()}
    return fields


def format_grid(schedule: Schedule, marked: tuple[int, int] | None = None) -> str:
    """The schedule as a grid, a row for each step and a column for each rank.

    Args:
        schedule: what to show.
        marked: (rank, position) of an action at fault; its cell and its row are marked.
    """
    columns: list[Sequence[str]] = []
    for rank, actions in enumerate(schedule.actions):
        cells = [f">{a}<" if marked == (rank, n) else str(a) for n, a in enumerate(actions)]
        if marked == (rank, len(actions)):
            cells.append("><")
        width = max(map(len, [f"rank {rank}", *cells]))
        columns.append([f"rank {rank}".ljust(width), *(cell.ljust(width) for cell in cells)])
    widths = [len(column[0]) for column in columns]
    lines = []
    for n, row in enumerate(itertools.zip_longest(*columns)):
        label = "step" if n == 0 else str(n - 1)
        text = "  ".join(cell or " " * width for cell, width in zip(row, widths, strict=True))
        fault = "  <-- ERROR HERE" if marked is not None and n - 1 == marked[1] else ""
        lines.append(f"{label:>4}  {text}".rstrip() + fault)
    return "\n".join(lines)
