"""A network as a row of named blocks, cut into components: what the builders have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from torch import nn

from interlocking_backprop.common.checks import is_whole
from interlocking_backprop.nets.grammar import parse_block_counts
from interlocking_backprop.schedule.cuts import balanced_cuts


def sequential(blocks: Iterable[tuple[str, nn.Module]]) -> nn.Sequential:
    """The blocks under their names, so that the keys of a state dict do not depend on the cut."""
    row = nn.Sequential()
    for name, block in blocks:
        row.add_module(name, block)
    return row


def component_sizes(
    blocks_per_component: int | str | Sequence[int | str], n_blocks: int, costs: Callable[[], Sequence[float]]
) -> list[int]:
    """How many blocks each component takes.

    Args:
        blocks_per_component: how many each component takes, the last one "rest"; or the number of components, which are
            then cut such that the dearest is as cheap as possible.
        n_blocks: in all.
        costs: of each block; called if they are needed.

    Raises:
        ValueError: if the argument does not read, or asks for more blocks than there are.
    """
    if isinstance(blocks_per_component, (str, Sequence)):
        return parse_block_counts(blocks_per_component, n_blocks)
    if not is_whole(blocks_per_component, 1, n_blocks):
        raise ValueError(
            f"blocks_per_component is {blocks_per_component!r}; expected a number of components from 1 to {n_blocks} "
            "(--components on the command line), the number of blocks with those of input and output, or the blocks of "
            "each component as in '1,1,rest'."
        )
    return balanced_cuts(costs(), blocks_per_component)


def describe(main_nets: Sequence[nn.Module]) -> str:
    """One line for each component: its blocks and its number of parameters."""
    lines = []
    for i, net in enumerate(main_nets):
        names = [name for name, _ in net.named_children()]
        span = names[0] if len(names) == 1 else f"{names[0]} … {names[-1]} ({len(names)} blocks)"
        lines.append(f"component {i}: {span}, {sum(p.numel() for p in net.parameters()):,} parameters")
    return "\n".join(lines)
