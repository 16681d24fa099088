"""Schemes and schedules can be had where torch is not installed."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import importlib, pkgutil, sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"{name} is asked for")

sys.meta_path.insert(0, NoTorch())
import interlocking_backprop as ib

for folder in ("interlocking_backprop.scheme", "interlocking_backprop.schedule"):
    for module in pkgutil.iter_modules(importlib.import_module(folder).__path__, folder + "."):
        importlib.import_module(module.name)

schedule = ib.list_schedule(ib.Workload.of(ib.parse_scheme("3wise", 8)), 2, ib.balanced_placement(8, 4))
ib.validate(schedule)
print(ib.simulate(schedule, ib.Costs.uniform(8, split_weight=1.0)).step_time)
schedule.save("schedule.json")
assert ib.Schedule.load("schedule.json") == schedule
ib.draw(schedule, "schedule.png")
"""


def test_from_the_scheme_to_the_picture(tmp_path):
    run = subprocess.run([sys.executable, "-c", CODE], cwd=tmp_path, capture_output=True, text=True)
    assert run.stderr == ""
    assert float(run.stdout) == 20  # two components of 5 units each on a rank, and two micro-batches
    assert (tmp_path / "schedule.png").read_bytes().startswith(b"\x89PNG")
