"""Small runs on text, from the command line."""

from __future__ import annotations

from pathlib import Path

from tests.text.made import write_texts

NET = ["--model", "transformer", "--width", "16", "--depth", "4", "--attention-heads", "2", "--context", "32"]
SMALL = ["train", *NET, "--components", "3", "--scheme", "3wise-sum", "--batch-size", "32", "--microbatches", "2"]
QUIET = ["--lr", "0.01", "--log-every", "2", "--threads", "1", "--device", "cpu", "--quiet", "--no-tensorboard"]


def arguments(folder: Path, run: Path, *more: str) -> list[str]:
    """Of `ibp train`: three components on a small text in ``folder``, five steps an epoch."""
    corpus = folder / "corpus"
    if not corpus.exists():
        write_texts(corpus)
    where = ["--data", f"text:{corpus}", "--data-root", str(folder), "--out", str(run)]
    return [*SMALL, *QUIET, *where, "--epoch-steps", "5", "--epochs", "2", *more]
