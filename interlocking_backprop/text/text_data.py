"""Text by the names that the command line uses.

| name | text | documents |
|---|---|---|
| ``stdlib`` | source of Python's standard library, tests and tables left out; about 10 MB | files |
| ``text:PATH`` | a file, or all files below a folder but hidden ones | files |
| ``hub:OWNER/NAME`` | from the Hugging Face hub: the column ``text``, or the first one of strings | rows |

Documents are held out whole, by the hash of their path or row; where there are only one or two files, the end of each
is. Sets of the hub that have a test or validation set of their own keep it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from interlocking_backprop.common.checks import check_whole
from interlocking_backprop.text.cache import cached
from interlocking_backprop.text.corpus import Corpus, HeldOut, local_text, standard_library
from interlocking_backprop.text.hub_text import hub_text
from interlocking_backprop.text.tokenizer import Tokenizer, parse_vocabulary
from interlocking_backprop.text.windows import EvaluationWindows, TrainingWindows

TEXT_FORMS = (
    "stdlib (the source of Python's standard library), text:PATH (a file, or a folder of files, in UTF-8), or "
    "hub:OWNER/NAME (text on the Hugging Face hub)"
)
VOCABULARY_FORMS = "bytes, or bpe:N (byte pairs learned from the training text, N tokens in all)"


@dataclass(frozen=True)
class TextData:
    """Text, ready for training a language model.

    Attributes:
        name: as it was asked for.
        train: windows in the order of the text; shuffle them.
        validation: what choices are made by.
        test: what results are reported on.
        tokenizer: from text to token ids and back.
        context: T, how many tokens a window has.
    """

    name: str
    train: TrainingWindows
    validation: EvaluationWindows
    test: EvaluationWindows
    tokenizer: Tokenizer
    context: int

    @property
    def vocabulary_size(self) -> int:
        """Token ids are 0 … vocabulary_size - 1; the last one separates documents."""
        return self.tokenizer.vocabulary_size


def load_text(
    name: str,
    root: str | Path = "data",
    *,
    context: int = 256,
    vocabulary: str = "bytes",
    validation_fraction: float = 0.05,
    test_fraction: float = 0.05,
    seed: int = 0,
) -> TextData:
    """Loads text as windows of tokens; docs/training.md says which there is.

    It is tokenised when it is first asked for, into files below ``root/text-cache`` that are read from then on.

    Args:
        name: one of the forms in `TEXT_FORMS`.
        root: folder of the cache.
        context: T, how many tokens a window has.
        vocabulary: one of the forms in `VOCABULARY_FORMS`. Either has a separator of documents as its last token, so
            there are 257 bytes.
        validation_fraction: share of the documents that is held out to validate on.
        test_fraction: share of the documents that is held out to test on.
        seed: of the choice of documents to hold out. Order and offsets of windows have theirs in `data.batches`.

    Raises:
        ValueError: if the name is not known, an option is out of its range, or the text cannot be read.
    """
    check_whole("context", context)
    parse_vocabulary(vocabulary)  # a bad one is to be found before the text is looked for
    corpus = _corpus(name, HeldOut(validation_fraction, test_fraction, seed))
    tokenizer, files = cached(corpus, vocabulary, Path(root).expanduser().resolve())
    if files["train"].n_targets < context:
        raise ValueError(
            f"{name} has {files['train'].n_targets} tokens to train on; expected at least one window, context is "
            f"{context}. Give more text or choose a smaller context."
        )
    return TextData(
        name,
        train=TrainingWindows(files["train"], context),
        validation=EvaluationWindows(files["validation"], context, tokenizer.separator),
        test=EvaluationWindows(files["test"], context, tokenizer.separator),
        tokenizer=tokenizer,
        context=context,
    )


def _corpus(name: str, held_out: HeldOut) -> Corpus:
    kind, colon, rest = name.partition(":")
    if name == "stdlib":
        return standard_library(held_out)
    if colon and rest:
        if kind == "text":
            return local_text(Path(rest).expanduser(), held_out)
        if kind == "hub":
            return hub_text(rest, held_out)
    raise ValueError(f"text {name!r} is not known; expected {TEXT_FORMS}.")
