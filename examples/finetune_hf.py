"""How to train a Hugging Face model with various schemes: the same model, from the same weights, with each of them.

    python examples/finetune_hf.py --model bert --scheme e2e pairwise

The models are small, made from a configuration, and learn something that is always at hand: gpt2 and llama to continue
the source of Python's standard library, bert to tell which of its modules a few characters come from, vit to read
handwritten digits. With a model of yours, from ``from_pretrained``, the part in `train` stays as it is.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import inspect
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import AdamW

import interlocking_backprop as ib
from interlocking_backprop.huggingface import causal_lm_loss, from_huggingface

CODE = ("argparse", "_pydecimal", "turtle", "mailbox")
KINDS_OF_TEXT = ("argparse", "html.entities", "encodings.cp037", "turtle")
WIDTH, LAYERS, HEADS = 64, 4, 4
PADDING = 256  # the one token that is no byte


class Task(NamedTuple):
    """What a model learns.

    Attributes:
        loss: of the logits and the targets.
        batch: from a generator of random numbers, and whether it is for training, to inputs and targets.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    batch: Callable[[torch.Generator, bool], tuple[dict[str, Tensor], Tensor]]


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    task = {"gpt2": text_task, "llama": text_task, "bert": origin_task, "vit": digits_task}[args.model]()
    print(f"{args.model}, {args.components} components, {args.steps} steps; loss on samples that are held out")
    for scheme in args.scheme:
        train(args, ib.parse_scheme(scheme, args.components), task)


def train(args: argparse.Namespace, scheme: ib.Scheme, task: Task) -> None:
    torch.manual_seed(args.seed)
    hf_model = make_model(args.model)

    main_nets, aux_nets = from_huggingface(hf_model, args.components, tied_weights=args.tied_weights)
    model = ib.build_model(
        main_nets,
        aux_nets,
        scheme,
        lambda params: AdamW(params, lr=args.lr),
        task.loss,
        aux_lr_factor=args.aux_lr_factor,
        max_grad_norm=1.0,
    )

    generator = torch.Generator().manual_seed(args.seed)
    before, begin = evaluate(model, task), time.perf_counter()
    model.train()
    for _ in range(args.steps):
        model.training_step(*task.batch(generator, True))
    seconds = time.perf_counter() - begin
    print(f"{scheme.name:>16}: {before:.3f} → {evaluate(model, task):.3f} ({seconds:.0f} s)", flush=True)
    model.shutdown()

    if args.out is not None:
        hf_model.save_pretrained(args.out / scheme.name)  # it shares the components' weights


def evaluate(model: ib.InterlockingBackpropModel, task: Task) -> float:
    """The mean loss over a few batches that are not trained on."""
    model.eval()
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(4):
        inputs, targets = task.batch(generator, False)
        losses.append(task.loss(model(inputs), targets))
    return torch.stack(losses).mean().item()


def make_model(name: str) -> torch.nn.Module:
    import transformers  # here, so that --help does not wait for it

    text = {"vocab_size": 257, "bos_token_id": PADDING, "eos_token_id": PADDING, "pad_token_id": PADDING}
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
    if name == "gpt2":
        config = transformers.GPT2Config(n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_positions=64, **text)
        return transformers.GPT2LMHeadModel(config)
    if name == "llama":
        config = transformers.LlamaConfig(**sizes, intermediate_size=3 * WIDTH, max_position_embeddings=64, **text)
        return transformers.LlamaForCausalLM(config)
    if name == "bert":
        config = transformers.BertConfig(
            **sizes, intermediate_size=4 * WIDTH, max_position_embeddings=64, num_labels=len(KINDS_OF_TEXT), **text
        )
        return transformers.BertForSequenceClassification(config)
    config = transformers.ViTConfig(
        **sizes, intermediate_size=4 * WIDTH, image_size=8, patch_size=2, num_channels=1, num_labels=10
    )
    return transformers.ViTForImageClassification(config)


def text_task(context: int = 64, size: int = 16) -> Task:
    """Continue the source of some modules, byte by byte."""

    def batch(generator: torch.Generator, training: bool) -> tuple[dict[str, Tensor], Tensor]:
        chosen = torch.randint(len(CODE), (size,), generator=generator).tolist()
        ids = torch.stack([stretch(CODE[module], context, generator, training) for module in chosen])
        return {"input_ids": ids}, ids  # labels are the ids themselves; the loss shifts them

    return Task(causal_lm_loss, batch)


def origin_task(longest: int = 48, size: int = 16) -> Task:
    """Tell which module some bytes are from. Rows are of different lengths, and padded."""

    def batch(generator: torch.Generator, training: bool) -> tuple[dict[str, Tensor], Tensor]:
        origins = torch.randint(len(KINDS_OF_TEXT), (size,), generator=generator)
        lengths = torch.randint(longest // 2, longest + 1, (size,), generator=generator).tolist()
        rows = [
            stretch(KINDS_OF_TEXT[origin], length, generator, training)
            for origin, length in zip(origins.tolist(), lengths, strict=True)
        ]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PADDING)
        return {"input_ids": ids, "attention_mask": (ids != PADDING).long()}, origins

    return Task(F.cross_entropy, batch)


def digits_task(size: int = 32) -> Task:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels).float().view(-1, 1, 8, 8) / 8 - 1
    digits = torch.from_numpy(labels)

    def batch(generator: torch.Generator, training: bool) -> tuple[dict[str, Tensor], Tensor]:
        low, high = (0, 1500) if training else (1500, len(digits))
        chosen = torch.randint(low, high, (size,), generator=generator)
        return {"pixel_values": images[chosen]}, digits[chosen]

    return Task(F.cross_entropy, batch)


def stretch(module: str, length: int, generator: torch.Generator, training: bool) -> Tensor:
    """Some bytes of a module's source, from its last tenth if they are not for training."""
    source = source_of(module)
    held_out = len(source) * 9 // 10
    part = source[:held_out] if training else source[held_out:]
    start = int(torch.randint(len(part) - length + 1, (), generator=generator))
    return part[start : start + length]


@functools.cache
def source_of(module: str) -> Tensor:
    return torch.tensor(list(inspect.getsource(importlib.import_module(module)).encode()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=("gpt2", "llama", "bert", "vit"), default="gpt2")
    parser.add_argument("--scheme", nargs="+", default=["e2e", "pairwise"], help="e2e, local, 3wise-sum, …")
    parser.add_argument("--components", type=int, default=4, help="into how many components the model is cut")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--aux_lr_factor", type=float, default=10.0, help="the heads' learning rate, in units of --lr")
    parser.add_argument("--tied_weights", choices=("keep", "untie"), default="untie", help="of a head that is tied")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="small models lose by sharing cores")
    parser.add_argument("--out", type=Path, default=None, help="folder for the trained models")
    try:
        main(parser.parse_args())
    except ValueError as error:
        sys.exit(f"finetune_hf.py: error: {error}")
