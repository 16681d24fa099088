"""Jobs in processes of their own, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from interlocking_backprop.compare.jobs import Job, Outcome, Processes


class Watcher:
    """Notes what happens; asks all to stop when it has been told something, if it is to."""

    def __init__(self, *, stops: bool = False) -> None:
        self.outcomes: dict[int, Outcome] = {}
        self.messages: list[tuple[int, object]] = []
        self.most = self._now = 0
        self._stops = stops

    def began(self, job: int) -> None:
        self._now += 1
        self.most = max(self.most, self._now)

    def told(self, job: int, message: object) -> None:
        self.messages.append((job, message))

    def ended(self, job: int, outcome: Outcome) -> None:
        self._now -= 1
        self.outcomes[job] = outcome

    def passed(self) -> bool:
        return self._stops and bool(self.messages)


def square(slot, report, x):
    report(f"slot {slot}")
    return x * x


def fail(slot, report, kind):
    print("before the end")
    raise kind("what went wrong\nand more")


def die(slot, report, number):
    os.kill(os.getpid(), number)
    time.sleep(60)


def leave(slot, report):
    os._exit(7)


def wait_long(slot, report):
    report("waiting")
    time.sleep(120)


def carry_out(tmp_path: Path, calls, n_slots: int = 2, **options) -> Watcher:
    watcher = Watcher(**options)
    with Processes(n_slots) as processes:
        processes.run(
            [Job(function, args, tmp_path / f"log-{n}") for n, (function, *args) in enumerate(calls)], watcher
        )
    return watcher


def test_what_functions_return_and_report(tmp_path):
    watcher = carry_out(tmp_path, [(square, x) for x in range(5)])
    assert [watcher.outcomes[n].value for n in range(5)] == [0, 1, 4, 9, 16]
    assert {message for _, message in watcher.messages} <= {"slot 0", "slot 1"}
    assert len(watcher.messages) == 5
    assert watcher.most == 2


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
    assert [outcomes[n].error for n in range(5)] == [
        "ValueError: what went wrong",
        "RuntimeError: what went wrong",
        "killed by SIGKILL (out of memory?)",
        "killed by SIGTERM",
        "its process ended with exit code 7",
    ]
    assert [outcomes[n].is_bad_input for n in range(5)] == [True, False, False, False, False]
    assert outcomes[5].value == 9
    log = (tmp_path / "log-0").read_text()
    assert "before the end" in log
    assert "Traceback" in log


def test_all_stop_when_asked_to(tmp_path):
    begin = time.monotonic()
    outcomes = carry_out(tmp_path, [(wait_long,)] * 3, stops=True).outcomes
    assert time.monotonic() - begin < 60
    assert outcomes[0].was_told_to_stop
    assert outcomes[0].error == "killed by SIGTERM"
    assert 2 not in outcomes  # not begun


def test_no_process_is_left_after_an_error(tmp_path):
    class Failing(Watcher):
        def told(self, job, message):
            self.pid = job
            raise RuntimeError("the watcher failed")

    with pytest.raises(RuntimeError, match="the watcher failed"), Processes(1) as processes:
        processes.run([Job(wait_long, (), tmp_path / "log")], Failing())
    assert all(not running.process.is_alive() for running in processes._running)


def test_processes_end_with_the_one_that_started_them(tmp_path):
    program = f"""
import tests.compare.test_jobs as t
from pathlib import Path
if __name__ == "__main__":
    t.carry_out(Path({str(tmp_path)!r}), [(t.write_pid_and_wait, Path({str(tmp_path)!r}))])
"""
    script = tmp_path / "program.py"
    script.write_text(program)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    parent = subprocess.Popen([sys.executable, str(script)], env=environment)
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "pid").exists():
            assert parent.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        parent.kill()
        parent.wait()
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, "it outlives its parent"
        time.sleep(0.1)


def write_pid_and_wait(slot, report, folder):
    (folder / "pid.new").write_text(str(os.getpid()))
    (folder / "pid.new").rename(folder / "pid")
    time.sleep(300)
