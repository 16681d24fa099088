"""Models of the `transformers` library, cut into components that share their parameters.

`transformers` is an optional extra: nothing here imports it before a model is given.
"""

from interlocking_backprop.huggingface.convert import from_huggingface
from interlocking_backprop.huggingface.loss import CausalLMLoss, causal_lm_loss

__all__ = ["CausalLMLoss", "causal_lm_loss", "from_huggingface"]
