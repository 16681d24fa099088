"""Several ranks train Transformers as one device does, bit for bit: ignored positions, masks, AdamW, dropout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import interlocking_backprop as ib
from interlocking_backprop.bench.processes import on_ranks
from interlocking_backprop.huggingface import causal_lm_loss, from_huggingface
from interlocking_backprop.nets.transformer_builder import transformer
from interlocking_backprop.text.token_loss import TokenLoss

K, VOCABULARY, CONTEXT = 4, 17, 8
RANDOM = ib.Scheme(np.triu(np.random.default_rng(3).normal(size=(K, K))), name="random")
CASES = [(kind, s) for kind in ("own", "gpt2") for s in (ib.e2e(K), ib.pairwise(K), ib.nwise(K, 3, "sum"), RANDOM)]


def own(scheme: ib.Scheme) -> ib.InterlockingBackpropModel:
    main_nets, aux_nets = transformer(
        VOCABULARY,
        width=16,
        depth=4,
        n_heads=2,
        context=CONTEXT,
        dropout=0.1,
        positions="rotary",
        blocks_per_component=K,
        aux_rank=4,
        chunked_loss=True,
    )
    return build(main_nets, aux_nets, scheme, TokenLoss(chunk_tokens=10))


def gpt2(scheme: ib.Scheme) -> ib.InterlockingBackpropModel:
    """With the dropout of the original, and its attention masks."""
    import transformers

    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_embd=16, n_layer=3, n_head=2, n_positions=CONTEXT, bos_token_id=0, eos_token_id=0
    )
    main_nets, aux_nets = from_huggingface(transformers.GPT2LMHeadModel(config), K, tied_weights="untie")
    return build(main_nets, aux_nets, scheme, causal_lm_loss)


def build(main_nets, aux_nets, scheme: ib.Scheme, loss) -> ib.InterlockingBackpropModel:
    adamw = lambda params: torch.optim.AdamW(params, lr=1e-2)  # noqa: E731
    options: dict[str, Any] = {"n_microbatches": 2, "aux_lr_factor": 5.0, "max_grad_norm": 1.0, "seed": 5}
    return ib.build_model(main_nets, aux_nets, scheme, adamw, loss, **options).train()


def batches(kind: str) -> Iterator[tuple[Any, torch.Tensor]]:
    """Uneven micro-batches: 5 samples, then 3, of lengths that differ; what is missing is masked and does not count."""
    generator = torch.Generator().manual_seed(2)
    for size in (5, 5, 3, 5):
        ids = torch.randint(VOCABULARY, (size, CONTEXT), generator=generator)
        lengths = torch.randint(2, CONTEXT + 1, (size, 1), generator=generator)
        kept = torch.arange(CONTEXT) < lengths
        if kind == "own":
            yield ids, ids.roll(-1, 1).where(kept, -100)
        else:
            yield {"input_ids": ids, "attention_mask": kept.long()}, ids.where(kept, -100)


def run(model: ib.InterlockingBackpropModel, kind: str) -> dict:
    """Trains, and evaluates in the end; returns everything that can be compared."""
    losses, exit_losses, outputs = [], [], []
    for x, target in batches(kind):
        here = (x, target) if model.rank == 0 else (None, None)
        losses.append(model.training_step(*here).result())
        exit_losses.append(model.exit_losses)
    outputs = model.eval().map_exits(lambda output, _: output, here[0])
    return {"losses": losses, "exit_losses": exit_losses, "outputs": outputs, "state": dict(model.state_dict())}


def model_of(kind: str, scheme: ib.Scheme) -> ib.InterlockingBackpropModel:
    torch.manual_seed(0)
    return own(scheme) if kind == "own" else gpt2(scheme)


def on_rank(rank: int, size: int) -> list[dict]:
    results = []
    for kind, scheme in CASES:
        model = model_of(kind, scheme)
        model.enable_model_parallel()
        results.append(run(model, kind))
        model.shutdown()
    return results


def the_one(values: list) -> Any:
    """What the one rank that has it says."""
    (value,) = (value for value in values if value is not None)
    return value


@pytest.fixture(scope="module")
def on_one_device() -> list[dict]:
    return [run(model_of(kind, scheme), kind) for kind, scheme in CASES]


@pytest.mark.parametrize("size", [2, 3])
def test_same_numbers(size, on_one_device):
    on_several = on_ranks(size, on_rank)
    for n, (kind, scheme) in enumerate(CASES):
        case, expected = (kind, scheme.name), on_one_device[n]
        parts = [results[n] for results in on_several]
        assert parts[-1]["losses"] == expected["losses"], case
        for step, exits in enumerate(expected["exit_losses"]):
            assert [the_one([part["exit_losses"][step][i] for part in parts]) for i in range(K)] == exits, case
        for i, output in enumerate(expected["outputs"]):
            assert torch.equal(the_one([part["outputs"][i] for part in parts]), output), (*case, i)
        state = {name: value for part in parts for name, value in part["state"].items()}
        assert state.keys() == expected["state"].keys()
        for name, value in expected["state"].items():
            assert torch.equal(value, state[name]), (*case, name)
