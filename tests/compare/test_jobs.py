"""Jobs in processes of their own, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from interlocking_backprop.compare.jobs import Job, Outcome, run_jobs


class Watcher:
    """Notes what happens; asks all to stop once a file is there."""

    def __init__(self, stop_at: Path | None = None) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self.most = 0
        self._stop_at = stop_at

    def ended(self, job: Job, outcome: Outcome) -> None:
        self.outcomes[job.name] = outcome

    def should_stop(self, running: Sequence[Job]) -> bool:
        self.most = max(self.most, len(running))
        return self._stop_at is not None and self._stop_at.exists()


def square(device, x):
    time.sleep(0.5)
    return device, x * x


def fail(device, kind):
    print("before the end")
    raise kind("what went wrong\nand more")


def die(device, number):
    os.kill(os.getpid(), number)
    time.sleep(60)


def leave(device):
    os._exit(7)


def nothing(device):
    return None


def end_at_once(device, path):
    path.touch()


def write_pid_and_wait(device, path):
    path.with_suffix(".new").write_text(str(os.getpid()))
    path.with_suffix(".new").rename(path)
    time.sleep(300)


def carry_out(tmp_path: Path, calls, watcher: Watcher | None = None, devices=("one", "two")) -> Watcher:
    watcher = watcher or Watcher()
    jobs = [
        Job(str(n), function, tuple(args), tmp_path / f"log-{n}", lambda outcome: "")
        for n, (function, *args) in enumerate(calls)
    ]
    run_jobs(jobs, devices, watcher.ended, watcher.should_stop)
    return watcher


def wait_for(happened) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_what_functions_return_on_which_device(tmp_path):
    watcher = carry_out(tmp_path, [(square, x) for x in range(5)])
    assert [watcher.outcomes[str(n)].value[1] for n in range(5)] == [0, 1, 4, 9, 16]
    assert {outcome.value[0] for outcome in watcher.outcomes.values()} == {"one", "two"}
    assert watcher.most == 2


def test_to_return_nothing_is_no_error(tmp_path):
    outcome = carry_out(tmp_path, [(nothing,)]).outcomes["0"]
    assert (outcome.value, outcome.error) == (None, "")


def test_how_a_job_may_fail_and_that_the_others_go_on(tmp_path):
    calls = [
        (fail, ValueError),
        (fail, RuntimeError),
        (die, signal.SIGKILL),
        (die, signal.SIGTERM),
        (leave,),
        (square, 3),
    ]
    outcomes = carry_out(tmp_path, calls).outcomes
    assert [outcomes[str(n)].error for n in range(5)] == [
        "ValueError: what went wrong",
        "RuntimeError: what went wrong",
        "killed by SIGKILL (out of memory?)",
        "killed by SIGTERM",
        "its process ended with exit code 7",
    ]
    assert outcomes["5"].value[1] == 9
    log = (tmp_path / "log-0").read_text()
    assert "before the end" in log
    assert "Traceback" in log


def test_all_stop_when_asked_to(tmp_path):
    pid = tmp_path / "pid"
    outcomes = carry_out(tmp_path, [(write_pid_and_wait, pid)] * 3, Watcher(stop_at=pid)).outcomes
    assert outcomes["0"].was_told_to_stop
    assert outcomes["0"].error == "killed by SIGTERM"
    assert "2" not in outcomes  # not begun


def test_what_ends_of_the_signal_that_stops_all_has_been_told_to_stop(tmp_path):
    """Ctrl-C reaches all processes at once: a job may end before anybody had the time to tell it."""
    watcher = Watcher(stop_at=tmp_path / "ended")
    outcomes = carry_out(tmp_path, [(end_at_once, tmp_path / "ended")], watcher).outcomes
    assert outcomes["0"].was_told_to_stop


def test_no_process_is_left_after_an_error(tmp_path):
    pid = tmp_path / "pid"

    class Failing(Watcher):
        def should_stop(self, running):
            if pid.exists():
                raise RuntimeError("the watcher failed")
            return False

    with pytest.raises(RuntimeError, match="the watcher failed"):
        carry_out(tmp_path, [(write_pid_and_wait, pid)], Failing())
    assert not Path("/proc", pid.read_text()).exists()


def test_processes_end_with_the_one_that_started_them(tmp_path):
    pid = tmp_path / "pid"
    program = f"""
import tests.compare.test_jobs as t
from pathlib import Path
if __name__ == "__main__":
    t.carry_out(Path({str(tmp_path)!r}), [(t.write_pid_and_wait, Path({str(pid)!r}))])
"""
    script = tmp_path / "program.py"
    script.write_text(program)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    parent = subprocess.Popen([sys.executable, str(script)], env=environment)
    try:
        wait_for(lambda: pid.exists() or parent.poll() is not None)
        assert parent.poll() is None
    finally:
        parent.kill()
        parent.wait()
    wait_for(lambda: not Path("/proc", pid.read_text()).exists())
