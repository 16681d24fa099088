"""What a run is, said at its beginning in about ten lines."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from interlocking_backprop.model import InterlockingBackpropModel
from interlocking_backprop.nets.flops import forward_flops
from interlocking_backprop.schedule.costs import Costs
from interlocking_backprop.schedule.schedule import Schedule
from interlocking_backprop.schedule.simulate import simulate
from interlocking_backprop.scheme.coefficients import Scheme, deep_supervision, e2e, local, pairwise
from interlocking_backprop.scheme.phases import Phases
from interlocking_backprop.training.config import TrainConfig
from interlocking_backprop.training.tasks import Task


def introduction(
    config: TrainConfig,
    task: Task,
    phases: Phases,
    model: InterlockingBackpropModel,
    n_steps: int,
    steps_per_epoch: int,
) -> str:
    """Describes a run.

    Args:
        config: of the run.
        task: what is learned.
        phases: the schemes that are followed.
        model: in its place. On several ranks this one, the first, describes all of it.
        n_steps: of the whole run.
        steps_per_epoch: of a full epoch.

    Returns:
        A line for each thing that one wants to know, with its name in front.
    """
    nets = [component.main_net for component in model.components]
    n_samples = f"{len(task.train):,} samples to train on, {len(task.validation):,} for validation"
    lines = {
        "folder": str(config.run_folder),
        "data": f"{config.data_name}: {n_samples}, {len(task.test):,} for the test",
        "device": _devices(model),
        "network": _network(config, model),
        "cut": " | ".join(_span(net) for net in nets),
        "balance": _balance(model, nets, task.sample),
        **{f"scheme {n}" if len(phases) > 1 else "scheme": _phase(phases, n) for n in range(len(phases))},
        "schedule": _schedule(model.schedule),
        "training": _training(config, n_steps, steps_per_epoch),
        **_rates(config, phases),
    }
    width = max(map(len, lines))
    return "\n".join(f"{name:{width}}  {text}" for name, text in lines.items())


def _devices(model: InterlockingBackpropModel) -> str:
    devices = model.runtime.devices()
    if model.n_ranks > 1:
        held = [model.schedule.components_of(rank) for rank in range(model.n_ranks)]
        shown = ", ".join(f"{rank}: {_range(components)}" for rank, components in enumerate(held))
        return f"{devices[0]} here, of {model.n_ranks} ranks that hold the components {shown}"
    names = list(dict.fromkeys(map(str, devices)))
    text = names[0] if len(names) == 1 else ", ".join(map(str, devices))
    return text + (
        f", {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}" if names == ["cpu"] else ""
    )


def _range(numbers: Sequence[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}"


def _network(config: TrainConfig, model: InterlockingBackpropModel) -> str:
    heads = {i: c.aux_net for i, c in enumerate(model.components) if c.aux_net is not None}
    text = f"{config.network.model}, {_n_parameters(*(c.main_net for c in model.components)):,} parameters; "
    if not heads:
        return f"{text}no heads"
    where = ", ".join(map(str, heads))
    return (
        f"{text}heads at {'exit' if len(heads) == 1 else 'exits'} {where} with {_n_parameters(*heads.values()):,} more"
    )


def _n_parameters(*nets: nn.Module) -> int:
    return sum(p.numel() for net in nets for p in net.parameters())


def _span(net: nn.Module) -> str:
    names = [name for name, _ in net.named_children()]
    return names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"


def _balance(model: InterlockingBackpropModel, nets: Sequence[nn.Module], sample: Tensor) -> str:
    """What part of a forward pass each component is."""
    was_training = model.training
    model.eval()
    try:
        costs = forward_flops([_on_meta(net) for net in nets], sample)
    finally:
        model.train(was_training)
    shares = ", ".join(f"{100 * cost / sum(costs):.0f}" for cost in costs)
    ratio = max(costs) / statistics.fmean(costs)
    return f"{shares} % of the operations of a forward pass; the largest has {ratio:.2f} times the mean"


def _on_meta(net: nn.Module) -> nn.Module:
    """The same net with weights that are not there, so that nothing is copied or computed."""
    state = {
        name: torch.empty_like(t, device="meta")
        for name, t in itertools.chain(net.named_parameters(), net.named_buffers())
    }

    class OnMeta(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            outputs: Tensor = torch.func.functional_call(net, state, (inputs,))
            return outputs

    return OnMeta()


def _phase(phases: Phases, n: int) -> str:
    end, scheme = phases[n]
    until = "" if len(phases) == 1 else "then " if end is None else f"until epoch {end} "
    k = scheme.n_components
    others = (local(k), pairwise(k), e2e(k), deep_supervision(k))
    known = next((other.name for other in reversed(others) if other == scheme), scheme.name)
    same = f", which is {known} with {k} component{'s' * (k > 1)}" if known != scheme.name else ""
    rows = " | ".join(_row(scheme, i) for i in range(k))
    return f"{until}{scheme.name}{same}; losses of the components: {rows}"


def _row(scheme: Scheme, i: int) -> str:
    """The losses that train component i: ``0.5 x 1 + 0.5 x 3 (age 2)``."""
    parts = []
    for age in (0, *scheme.delayed):
        late = f" (age {age})" if age else ""
        row = scheme.coefficients(age)[i].tolist()
        parts += [(f"{j}" if c == 1 else f"{c:.3g} x {j}") + late for j, c in enumerate(row) if c]
    return " + ".join(parts) or "none"


def _schedule(schedule: Schedule) -> str:
    m = schedule.n_microbatches
    found = simulate(schedule, Costs.uniform(schedule.n_components, split_weight=1.0), timeline_steps=0)
    where = "one device" if schedule.n_ranks == 1 else f"{schedule.n_ranks} devices"
    return (
        f"a step takes {found.step_time / m:.3g} units per micro-batch on {where}, the limit is {found.limit / m:.3g}; "
        f"M = {m} (1 unit: a component's forward pass)"
    )


def _rates(config: TrainConfig, phases: Phases) -> dict[str, str]:
    """By what learning rates are multiplied, where that is not 1."""
    found = {scheme.name: config.rate_factors(scheme) for scheme in phases.schemes}
    shown = [f"{name}: {' | '.join(f'{f:.3g}' for f in fs)}" for name, fs in found.items() if any(f != 1 for f in fs)]
    return {"rates": f"of the components, times {'; '.join(shown)}"} if shown else {}


def _training(config: TrainConfig, n_steps: int, steps_per_epoch: int) -> str:
    o = config.optimization
    n_epochs = -(-n_steps // steps_per_epoch)
    lr = f"{config.optimizer_name} with {config.of_optimizer('lr'):g}"
    if config.optimizer_name == "muon":
        lr += f", adamw beside it with {config.of_optimizer('adamw_lr'):g}"
    length = (
        f"{n_steps:,} step{'s' * (n_steps > 1)} of {o.batch_size} samples in {n_epochs} epoch{'s' * (n_epochs > 1)}"
    )
    return f"{length}; {lr} ({o.lr_schedule}); seed {config.seed}"
