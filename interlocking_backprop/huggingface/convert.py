"""From a model of the `transformers` library to components that any scheme trains.

model = AutoModelForSequenceClassification.from_pretrained(…)
main_nets, aux_nets = ib.from_huggingface(model, 4)
trained = ib.build_pairwise_model(main_nets, aux_nets, optimizer_constructor, None, F.cross_entropy)
trained.train()
…                                              # trained.training_step(dict(tokenizer(texts, …)), labels)
model.save_pretrained("trained")
"""

from __future__ import annotations

import functools
import itertools
from typing import Any, Literal

from torch import nn

from interlocking_backprop.engine.tree import Tree, to_device
from interlocking_backprop.huggingface import library
from interlocking_backprop.huggingface.bert import Bert, DistilBert, Roberta
from interlocking_backprop.huggingface.family import Family
from interlocking_backprop.huggingface.gpt2 import GPT2
from interlocking_backprop.huggingface.llama import Llama, Qwen
from interlocking_backprop.huggingface.nets import HuggingFaceComponent, HuggingFaceHead
from interlocking_backprop.huggingface.tied_weights import is_tied, untie
from interlocking_backprop.huggingface.vit import ViT
from interlocking_backprop.nets.block_costs import Measure
from interlocking_backprop.nets.heads import HeadFactory, auxiliary_heads
from interlocking_backprop.nets.partition import cut

FAMILIES: dict[str, Family] = {
    "BertForSequenceClassification": Bert(),
    "DistilBertForSequenceClassification": DistilBert(),
    "GPT2LMHeadModel": GPT2(),
    "LlamaForCausalLM": Llama(),
    "Qwen2ForCausalLM": Qwen(),
    "Qwen3ForCausalLM": Qwen(),
    "RobertaForSequenceClassification": Roberta(),
    "ViTForImageClassification": ViT(),
}


def from_huggingface(
    hf_model: Any,
    n_components: int,
    *,
    by: Measure = "flops",
    sample_inputs: Tree = None,
    aux_nets: Literal["copies"] | HeadFactory | None = "copies",
    head_rank: int | None = None,
    tied_weights: Literal["keep", "untie"] = "keep",
) -> tuple[list[nn.Module], list[nn.Module | None]]:
    """Cuts a model into components that share its parameters, and makes a head for each but the last.

    The first component takes the dict that the model takes (labels go to the loss instead), and the last one returns
    the logits, equal to the model's own to the bit in evaluation mode on a CPU. Keys and values are not cached. The
    model keeps its mode: call ``train()`` on what `build_model` returns before training, as `from_pretrained` leaves
    models in evaluation mode. Gradient checkpointing that is switched on stays on.

    Args:
        hf_model: one of the classes of `FAMILIES`.
        n_components: K, at most the number of layers and 2, for the embeddings and the head.
        by: what the cut balances, see `partition`. The default is the same on every machine.
        sample_inputs: inputs as in training, which "time" and "activations" are measured on; the other measures take a
            sample that is made from the configuration if there is none here.
        aux_nets: "copies" makes each head a copy of the model's own head, e.g. the last normalisation and the
            projection to the vocabulary, or pooling and classifier. Or a function from the index of a component, and
            what it returns on the sample (a dict with "hidden_states"), to its head or None. None for none.
        head_rank: projections to the vocabulary in these heads go through so many channels, and are new; by default
            they are in full, which is a good part of a small language model.
        tied_weights: of a model whose head is the weight of its embedding. "keep": both ends hold the same Parameter,
            which `build_model` keeps tied: two equal ones from then on, until ``hf_model.tie_weights()`` after training
            makes them one again. "untie": the head gets a copy of its own, in the model too, so that the
            first component need not wait for the last one in every step.

    Raises:
        ValueError: if the model cannot be cut, the library is missing or too old, or an argument does not fit, with the
            remedy.
    """
    library.load()
    family = _family(hf_model)
    if tied_weights not in ("keep", "untie"):
        raise ValueError(f"tied_weights is {tied_weights!r}; expected 'keep' or 'untie'.")
    _check_heads(family, hf_model, aux_nets, head_rank)
    _check_checkpointing(family, hf_model)
    if sample_inputs is None and by in ("time", "activations"):
        raise ValueError(f"by is {by!r}, which is measured on a sample, and sample_inputs is None; pass a batch.")
    sample = to_device(family.sample(hf_model.config), hf_model.device) if sample_inputs is None else sample_inputs
    if tied_weights == "untie" and is_tied(hf_model):
        untie(hf_model)

    n_layers = len(hf_model.get_submodule(family.layers))
    stretch = functools.partial(_stretch, family, hf_model, n_layers)
    sizes, _ = cut([stretch(b, b + 1) for b in range(n_layers + 2)], n_components, sample, by)
    cuts = itertools.pairwise(itertools.accumulate(sizes, initial=0))
    main_nets: list[nn.Module] = [stretch(begin, end) for begin, end in cuts]
    if aux_nets is None:
        return main_nets, [None] * (n_components - 1)
    if aux_nets == "copies":
        return main_nets, [HuggingFaceHead(family, hf_model, head_rank) for _ in main_nets[:-1]]
    return main_nets, auxiliary_heads(main_nets, sample, head_factory=aux_nets)


def _stretch(family: Family, model: nn.Module, n_layers: int, begin: int, end: int) -> HuggingFaceComponent:
    """The component of some blocks, of which block 0 is the embeddings and the last one, n_layers + 1, the head."""
    layers = range(max(begin, 1) - 1, min(end, n_layers + 1) - 1)
    return HuggingFaceComponent(family, model, begin == 0, layers, end == n_layers + 2)


def _family(model: Any) -> Family:
    kinds = type(model).__mro__
    by_hand = (
        "For any other architecture hand over the blocks yourself: ib.partition([embeddings, *layers, head], k, "
        "sample) cuts modules each of which takes what the one before returns, and ib.build_model trains them."
    )
    adapted = getattr(model, "_hf_peft_config_loaded", False)
    if adapted or any(kind.__module__.split(".")[0] == "peft" for kind in kinds):
        raise ValueError(
            f"the model is a {type(model).__name__} with adapters (LoRA or other PEFT); expected a plain model. Merge "
            f"the adapters first, model = model.merge_and_unload(). {by_hand}"
        )
    family = FAMILIES.get(type(model).__name__)
    if family is None or not type(model).__module__.startswith("transformers.models."):
        raise ValueError(f"the model is a {type(model).__name__}; expected one of {', '.join(FAMILIES)}. {by_hand}")
    missing = [path for path in family.parts() if not _has(model, path)]
    if missing:
        raise ValueError(
            f"this {type(model).__name__} has no module {missing[0]!r}; expected the structure that it has in "
            f"transformers {library.tested()}. If it comes from there unchanged, choose one of these versions."
        )
    return family


def _has(model: nn.Module, path: str) -> bool:
    try:
        model.get_submodule(path)
    except AttributeError:
        return False
    return True


def _check_heads(family: Family, model: Any, aux_nets: object, head_rank: int | None) -> None:
    if aux_nets is not None and aux_nets != "copies" and not callable(aux_nets):
        raise ValueError(f"aux_nets is {aux_nets!r}; expected 'copies', None, or a function (i, output) -> head.")
    if head_rank is None:
        return
    if family.projection is None or aux_nets != "copies":
        raise ValueError(
            f"head_rank is {head_rank!r}; expected None here, as it is for the projections to a vocabulary that "
            "language models have with aux_nets='copies'."
        )
    width = model.config.hidden_size
    if isinstance(head_rank, bool) or not isinstance(head_rank, int) or not 1 <= head_rank <= width:
        raise ValueError(f"head_rank is {head_rank!r}; expected a whole number from 1 to {width}, the model's width.")


def _check_checkpointing(family: Family, model: Any) -> None:
    for layer in model.get_submodule(family.layers):
        function = getattr(layer, "_gradient_checkpointing_func", None)
        options = getattr(function, "keywords", {})
        if getattr(layer, "gradient_checkpointing", False) and options.get("use_reentrant"):
            raise ValueError(
                "the model's gradient checkpointing is reentrant, which cannot compute the gradients of inputs and of "
                "weights in separate passes; switch it on with {'use_reentrant': False} as the argument."
            )
