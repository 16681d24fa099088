"""Trains the same small ResNet with several schemes on scikit-learn's digits and compares their test accuracy."""

from __future__ import annotations

import os
import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from interlocking_backprop.training.config import TrainConfig
from interlocking_backprop.training.trainer import Trainer

SCHEMES = ("e2e", "deep-supervision", "3wise", "pairwise-sum", "pairwise", "local")
SEEDS = range(4)


def train(scheme: str, seed: int, folder: Path) -> float:
    """The test accuracy of one run."""
    config = TrainConfig(
        scheme=scheme,
        components=6,
        data="digits",
        epochs=10,
        batch_size=32,
        lr=0.05,
        seed=seed,
        threads=1,  # runs go side by side; small nets lose by sharing cores
        device="cpu",
        tensorboard=False,
        quiet=True,
        out=folder / f"{scheme}-{seed}",
    )
    final = Trainer(config).fit()[-1]
    assert final is not None
    return final["accuracy"]


def main() -> None:
    console = Console()
    console.print("A ResNet of 6 blocks on 1,197 images of digits (8 x 8 pixels), cut into 6 components.\n")
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(os.cpu_count()) as pool:
        futures = {
            (scheme, seed): pool.submit(train, scheme, seed, Path(folder)) for seed in SEEDS for scheme in SCHEMES
        }
        accuracies = {key: future.result() for key, future in track(futures.items(), "training", console=console)}
    table = Table(title="test accuracy in %", title_justify="left")
    for heading in ("scheme", "mean", "std", f"{len(SEEDS)} seeds"):
        table.add_column(heading, justify="left" if heading == "scheme" else "right")
    for scheme in SCHEMES:
        values = [100 * accuracies[scheme, seed] for seed in SEEDS]
        table.add_row(
            scheme,
            f"{statistics.mean(values):.2f}",
            f"± {statistics.stdev(values):.2f}",
            "  ".join(f"{v:.2f}" for v in values),
        )
    console.print(table)


if __name__ == "__main__":
    main()
