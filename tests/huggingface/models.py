"""Models of three layers with random weights, and inputs for them."""

from __future__ import annotations

from typing import Any

import torch
import transformers

VOCABULARY = 61
_TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "max_position_embeddings": 24,
}
_CAUSAL = _TEXT | {"num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2}
_VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "image_size": 12,
    "patch_size": 4,
    "num_labels": 3,
}
_GPT2 = {
    "vocab_size": VOCABULARY,
    "n_embd": 16,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 24,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_DISTILBERT = {
    "vocab_size": VOCABULARY,
    "dim": 16,
    "hidden_dim": 32,
    "n_layers": 3,
    "n_heads": 4,
    "max_position_embeddings": 24,
    "num_labels": 3,
}
# A window of three tokens in the last two layers of Qwen2.
_WINDOW = {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1}

KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", _GPT2),
    "llama": ("LlamaForCausalLM", "LlamaConfig", _CAUSAL),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", _CAUSAL | _WINDOW),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", _CAUSAL | {"head_dim": 4, "tie_word_embeddings": True}),
    "bert": ("BertForSequenceClassification", "BertConfig", _TEXT | {"num_labels": 3}),
    "roberta": ("RobertaForSequenceClassification", "RobertaConfig", _TEXT | {"num_labels": 3, "pad_token_id": 1}),
    "distilbert": ("DistilBertForSequenceClassification", "DistilBertConfig", _DISTILBERT),
    "vit": ("ViTForImageClassification", "ViTConfig", _VIT),
}
CAUSAL = ("gpt2", "llama", "qwen2", "qwen3")
TIED = ("gpt2", "qwen3")


def make(kind: str, *, attention: str = "sdpa", seed: int = 0, **config: Any) -> Any:
    """A model in evaluation mode."""
    model, config_class, options = KINDS[kind]
    torch.manual_seed(seed)
    made = getattr(transformers, model)(getattr(transformers, config_class)(**options | config))
    made.set_attn_implementation(attention)
    for parameter in made.parameters():  # biases and norms are drawn too, so that nothing is hidden by zeros and ones
        parameter.data += 0.1 * torch.randn_like(parameter)
    return made.eval()


def inputs(kind: str, *, mask: bool = False, n: int = 3) -> dict[str, torch.Tensor]:
    """A batch; with a mask, the first row is padded on its right and the second on its left."""
    generator = torch.Generator().manual_seed(1)
    if kind == "vit":
        return {"pixel_values": torch.randn(n, 3, 12, 12, generator=generator)}
    ids = torch.randint(3, VOCABULARY, (n, 9), generator=generator)
    if not mask:
        return {"input_ids": ids}
    kept = torch.ones_like(ids)
    kept[0, 5:] = 0
    kept[1, :2] = 0
    return {"input_ids": ids.where(kept == 1, 1 if kind == "roberta" else 0), "attention_mask": kept}


def targets(kind: str, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Classes; of causal models the labels, which are the ids, with -100 at padding."""
    if kind not in CAUSAL:
        return torch.arange(len(next(iter(batch.values())))) % 3
    kept = batch.get("attention_mask", torch.ones_like(batch["input_ids"]))
    return batch["input_ids"].where(kept == 1, -100)
