"""Windows of a file of tokens: what a language model is trained and evaluated on.

The input is a stretch of T tokens (the context), the target the same stretch one token on. Documents follow each other
with a separator between them, and windows pay no heed to where one ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from interlocking_backprop.data.split import BatchRequest

IGNORED = -100


@dataclass(frozen=True)
class TokenFile:
    """A part of a corpus on disk.

    Attributes:
        path: the file; token ids and nothing else.
        dtype: of the ids.
        n_tokens: how many there are, the first one a separator.
        n_bytes: how many bytes all but the first token stand for: those of the text, and one for each separator.
    """

    path: Path
    dtype: str
    n_tokens: int
    n_bytes: int

    @property
    def n_targets(self) -> int:
        """How many tokens there are to predict: all but the first."""
        return self.n_tokens - 1

    def open(self) -> npt.NDArray[np.integer]:
        """The tokens, mapped. Opened anew for every batch: it takes microseconds, and workers need not share a map."""
        return np.memmap(self.path, self.dtype, mode="r", shape=(self.n_tokens,))


@dataclass(frozen=True)
class _Windows:
    tokens: TokenFile
    context: int

    @property
    def n_bytes(self) -> int:
        """Bytes of all targets; the separator behind a document counts as one."""
        return self.tokens.n_bytes

    @property
    def bytes_per_token(self) -> float:
        """How many bytes a target stands for on average; 1 for a vocabulary of bytes."""
        return self.tokens.n_bytes / self.tokens.n_targets


@dataclass(frozen=True)
class TrainingWindows(_Windows):
    """As many windows as fit without overlap, moved by a new offset in every batch.

    The offset is below T, drawn from the seed of the batch and the same for all of its windows. So the windows of a
    batch do not overlap, and over the epochs every token is met at every place of a window. Within one epoch a token is
    met once on average, not exactly. The windows are spread over the whole part, which goes round in a ring.
    """

    def __len__(self) -> int:
        return self.tokens.n_targets // self.context

    def __getitems__(self, request: BatchRequest) -> tuple[Tensor, Tensor]:
        n = self.tokens.n_targets  # the ring: the last token is a separator, as the first is
        generator = torch.Generator().manual_seed(request.seed)
        offset = int(torch.randint(self.context, (), generator=generator))
        starts = np.array([i * n // len(self) + offset for i in request.indices])
        places = (starts[:, None] + np.arange(self.context + 1)) % n
        windows = torch.from_numpy(self.tokens.open()[places].astype(np.int64))
        return windows[:, :-1].contiguous(), windows[:, 1:].contiguous()


@dataclass(frozen=True)
class EvaluationWindows(_Windows):
    """Windows side by side, in which every token but the first separator is a target once.

    A token is predicted from those before it in its window, T / 2 on average. The last window is filled up with
    separators; their targets are `IGNORED`.
    """

    separator: int

    def __len__(self) -> int:
        return math.ceil(self.tokens.n_targets / self.context)

    def __getitems__(self, request: BatchRequest) -> tuple[Tensor, Tensor]:
        tokens, n = self.tokens.open(), self.tokens.n_targets
        starts = np.array(request.indices)[:, None] * self.context
        places = starts + np.arange(self.context)
        exists = places < n
        inputs = np.where(exists, tokens[np.minimum(places, n)].astype(np.int64), self.separator)
        targets = np.where(exists, tokens[np.minimum(places + 1, n)].astype(np.int64), IGNORED)
        return torch.from_numpy(inputs), torch.from_numpy(targets)
