"""Text for language models: corpora by name, as tokens on disk, and windows of them in batches."""

from interlocking_backprop.text.metrics import bits_per_byte, language_metrics, language_summary, perplexity
from interlocking_backprop.text.text_data import TEXT_FORMS, VOCABULARY_FORMS, TextData, load_text
from interlocking_backprop.text.tokenizer import Tokenizer, tokenizer_from_json
from interlocking_backprop.text.windows import EvaluationWindows, TrainingWindows

__all__ = [
    "TEXT_FORMS",
    "VOCABULARY_FORMS",
    "EvaluationWindows",
    "TextData",
    "Tokenizer",
    "TrainingWindows",
    "bits_per_byte",
    "language_metrics",
    "language_summary",
    "load_text",
    "perplexity",
    "tokenizer_from_json",
]
