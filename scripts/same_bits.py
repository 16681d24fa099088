"""Tells whether a change of the package has changed any number that it computes, by a single bit.

    python scripts/same_bits.py against COMMIT          trains with the package of a commit, then with this one
    python scripts/same_bits.py record RECORD.json      trains with the package that is importable
    python scripts/same_bits.py compare A.json B.json   exits with 1 if the records differ

Small models are trained for five steps each, in many settings, on one device, a device per component and several ranks.
The record holds digests of all that comes out: losses, outputs at every exit, parameters and buffers, states of
optimizers. Digests depend on the processor and the version of torch, so records are compared on one machine.
"""

from __future__ import annotations

import copy
import gc
import hashlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from same_bits_settings import Facts, Setting, settings
from torch import Tensor

import interlocking_backprop as ib

RANKS = (2, 3, 4)
TIMEOUT = 600  # seconds that all settings may take on a number of ranks


def train(setting: Setting, *, devices: bool = False) -> dict[str, str]:
    """Trains for five steps; digests, by name, of all facts that are at hand in this process."""
    torch.manual_seed(0)
    facts: Facts = {}
    model = placed(setting, devices)
    for step, batch in enumerate(setting.batches()):
        x, target = batch if model.rank == 0 else (None, None)
        facts[f"losses/{step}"] = model.training_step(x, target).result()
        facts |= {f"losses/{step} at exit {i}": loss for i, loss in enumerate(model.exit_losses)}
        setting.between(model, step, x, target, facts)
        if setting.is_reloaded and step == 1:
            state = copy.deepcopy((model.state_dict(), model.training_state_dict()))
            model.shutdown()
            model = placed(setting, devices)
            model.load_state_dict(state[0])
            model.load_training_state_dict(state[1])
    model.eval()
    facts["outputs/network"] = model(x)
    facts |= {f"outputs/exit {i}": output for i, output in enumerate(model.forward_exits(x))}
    facts |= {f"state/{name}": value for name, value in model.state_dict().items()}
    for i in model.local_components:
        for n, optimizer in enumerate(model.components[i].optimizers):
            facts[f"optimizers/{i}.{n}"] = optimizer.state_dict()
    if model.n_ranks == 1:  # training leaves the program's own random numbers as they are
        facts["random numbers/"] = torch.get_rng_state()
    model.shutdown()
    return {name: digest(value) for name, value in facts.items() if value is not None}


def placed(setting: Setting, devices: bool) -> Any:
    model = setting.build().train()
    if devices or dist.is_initialized():
        model.enable_model_parallel(["cpu"] * len(model.components) if devices else None)
    return model


def digest(value: Any) -> str:
    """A digest of tensors in dicts, tuples and lists, with all that identifies them."""
    if isinstance(value, Tensor):
        content = [value.dtype, tuple(value.shape), value.detach().contiguous().numpy().tobytes()]
    elif isinstance(value, dict):
        content = [(repr(name), digest(value[name])) for name in sorted(value, key=repr)]
    elif isinstance(value, (list, tuple)):
        content = [digest(item) for item in value]
    else:
        content = [value]
    return hashlib.sha256(repr(content).encode()).hexdigest()


def by_kind(facts: dict[str, str]) -> dict[str, str]:
    """One digest for each kind of facts: losses, outputs, state, optimizers, random numbers."""
    kinds = itertools.groupby(sorted(facts.items()), key=lambda item: item[0].partition("/")[0])
    return {kind: digest(list(items)) for kind, items in kinds}


def on_rank(rank: int, size: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    found = {}
    for name, each in settings().items():
        if each.everywhere and len(each.build().components) >= size:
            # Process groups of models that are gone keep their file descriptors until the default group ends.
            where = f"file://{folder}/rendezvous-{len(found)}"
            dist.init_process_group("gloo", init_method=where, rank=rank, world_size=size)
            found[name] = train(each)
            dist.destroy_process_group()
            gc.collect()
    Path(folder, f"{rank}.json").write_text(json.dumps(found))


def on_ranks(size: int) -> dict[str, dict[str, str]]:
    """The facts of all ranks together.

    Raises:
        TimeoutError: if the ranks do not finish in time.
    """
    with tempfile.TemporaryDirectory() as folder:
        ranks = mp.start_processes(on_rank, (size, folder), size, join=False, start_method="forkserver")
        end = time.monotonic() + TIMEOUT
        while not ranks.join(timeout=1):
            if time.monotonic() > end:
                for process in ranks.processes:
                    process.kill()
                raise TimeoutError(f"{size} ranks have not finished within {TIMEOUT} seconds")
        parts = [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(size)]
    return {name: {fact: value for part in parts for fact, value in part[name].items()} for name in parts[0]}


def record(path: Path) -> None:
    """Trains in all settings and writes the digests."""
    torch.set_num_threads(1)
    os.environ["TORCH_CPP_LOG_LEVEL"] = "ERROR"  # ranks that end a little apart warn of one another
    begin, found = time.monotonic(), {}
    for name, each in settings().items():
        found[name] = by_kind(train(each))
        if each.everywhere:
            found[f"{name} | a device each"] = by_kind(train(each, devices=True))
    for size in RANKS:
        found |= {f"{name} | {size} ranks": by_kind(facts) for name, facts in on_ranks(size).items()}
    path.write_text(json.dumps(found, indent=1) + "\n")
    seconds = time.monotonic() - begin
    print(f"{len(found)} settings in {seconds:.0f} s with {Path(ib.__file__).parent}, torch {torch.__version__}")


def compare(a: Path, b: Path) -> int:
    """Prints what differs; returns the exit code."""
    first, second = (json.loads(path.read_text()) for path in (a, b))
    n_different = 0
    for name in dict.fromkeys([*first, *second]):
        kinds = [first.get(name, {}), second.get(name, {})]
        different = [kind for kind in dict.fromkeys([*kinds[0], *kinds[1]]) if kinds[0].get(kind) != kinds[1].get(kind)]
        if different:
            n_different += 1
            print(f"{name}: {', '.join(different)}")
    print(f"{n_different} of {len(first.keys() | second.keys())} settings differ")
    return int(n_different > 0)


def against(commit: str) -> int:
    """Compares the package of a commit with that of this working tree; returns the exit code."""
    root = Path(__file__).resolve().parents[1]
    with tempfile.TemporaryDirectory() as folder:
        old = Path(folder, "old")
        subprocess.run(["git", "-C", root, "worktree", "add", "--quiet", "--detach", old, commit], check=True)
        try:
            records = []
            for package in (old, root):
                records.append(Path(folder, f"{package.name}.json"))
                environment = {**os.environ, "PYTHONPATH": str(package)}
                subprocess.run([sys.executable, __file__, "record", records[-1]], env=environment, check=True)
            return compare(*records)
        finally:
            subprocess.run(["git", "-C", root, "worktree", "remove", "--force", old], check=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["record", path]:
            record(Path(path))
        case ["compare", a, b]:
            sys.exit(compare(Path(a), Path(b)))
        case ["against", commit]:
            sys.exit(against(commit))
        case _:
            sys.exit(__doc__)
