"""Components and heads: nets whose modules are the original model's, or copies of them, under their original names."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from interlocking_backprop.engine.tree import Tree
from interlocking_backprop.huggingface.family import Family


class Selection(nn.Module):
    """Modules of a model under the names that they have there, so that the keys of a state dict are the same."""

    def __init__(self, modules: Mapping[str, nn.Module], training: bool) -> None:
        super().__init__()
        self.training = training
        for path, module in modules.items():
            *parents, name = path.split(".")
            place: nn.Module = self
            for parent in parents:
                if parent not in place._modules:
                    place.add_module(parent, nn.Module())
                    place.get_submodule(parent).training = training
                place = place.get_submodule(parent)
            place.add_module(name, module)


class HuggingFaceComponent(Selection):
    """A stretch of a model: the embeddings, layers and the head, or some of these.

    Args:
        family: of the model.
        model: whose modules are shared.
        embeds: whether it begins with the model's inputs, or else with what the component before returns.
        layers: the indices of its layers.
        predicts: whether it ends in logits, or else in what the next component takes.
    """

    def __init__(self, family: Family, model: nn.Module, embeds: bool, layers: Sequence[int], predicts: bool) -> None:
        paths = {layer: f"{family.layers}.{layer}" for layer in layers}
        shared = [*(family.embeddings if embeds else ()), *paths.values(), *(family.head if predicts else ())]
        modules = {path: model.get_submodule(path) for path in shared}
        if layers:
            modules |= {path: copy.deepcopy(model.get_submodule(path)) for path in family.copied}
        super().__init__(modules, model.training)
        self.family = family
        self.config = model.config
        self.embeds = embeds
        self.predicts = predicts
        self._paths = paths

    def forward(self, inputs: Tree) -> Tree:
        """From inputs to logits.

        Args:
            inputs: of the first component the dict that the model takes; of the others what the component before
                returned, a dict of the hidden states and what layers need beside them.

        Raises:
            ValueError: if the first component gets anything but a dict of what it knows.
        """
        if self.embeds:
            given = _checked(inputs, self.family)
            hidden = self.family.embed(self, given)
            passed_on = {name: given[name] for name in self.family.passed_on if name in given}
        else:
            passed_on = dict(inputs)
            hidden = passed_on.pop("hidden_states")
        if self._paths:
            arguments = self.family.layer_arguments(self, self.config, hidden, passed_on)
            for layer, path in self._paths.items():
                hidden = self.get_submodule(path)(hidden, **arguments(layer))
        return self.family.logits(self, hidden) if self.predicts else {"hidden_states": hidden, **passed_on}

    def extra_repr(self) -> str:
        return f"embeds={self.embeds}, layers={list(self._paths)}, predicts={self.predicts}"


class HuggingFaceHead(Selection):
    """A head for inner components: copies of the modules that the model's own head consists of.

    A trained model's head understands hidden states of inner layers to some degree from the start, which no new head
    does; one that is untrained is drawn from the right distribution.
    """

    def __init__(self, family: Family, model: nn.Module, rank: int | None = None) -> None:
        modules = {path: copy.deepcopy(model.get_submodule(path)).requires_grad_() for path in family.head}
        if rank is not None and family.projection is not None:
            modules[family.projection] = _low_rank(modules[family.projection], rank)
        super().__init__(modules, model.training)
        self.family = family

    def forward(self, state: Mapping[str, Tensor]) -> Tensor:
        return self.family.logits(self, state["hidden_states"])


def _low_rank(projection: nn.Module, rank: int) -> nn.Sequential:
    """A new projection of the same shape through fewer channels, which keep the scale of the features."""
    assert isinstance(projection, nn.Linear)
    like: dict[str, Any] = {"device": projection.weight.device, "dtype": projection.weight.dtype}
    reduce = nn.Linear(projection.in_features, rank, bias=False, **like)
    expand = nn.Linear(rank, projection.out_features, bias=False, **like)
    nn.init.normal_(reduce.weight, std=projection.in_features**-0.5)
    nn.init.normal_(expand.weight, std=0.02)
    return nn.Sequential(reduce, expand)


def _checked(inputs: Tree, family: Family) -> dict[str, Any]:
    """The inputs that are given."""
    indispensable, *others = family.inputs
    if not isinstance(inputs, Mapping):
        raise ValueError(
            f"the inputs are a {type(inputs).__name__}; expected a dict as the model takes it: "
            f"{{{indispensable!r}: …}}, and if need be {_listed(others)}."
        )
    given = {name: value for name, value in inputs.items() if value is not None}
    unknown = [name for name in given if name not in family.inputs]
    if unknown:
        labels = " Labels are the targets: training_step(inputs, labels)." if "labels" in unknown else ""
        raise ValueError(f"the inputs hold {_listed(unknown)}; expected {_listed(family.inputs)}.{labels}")
    if indispensable not in given:
        raise ValueError(f"the inputs hold {_listed(given) or 'nothing'}; expected {indispensable!r} too.")
    return given


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
