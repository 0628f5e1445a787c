"""A homeserver as a child: its death is explained, its end is orderly, and nothing else is ever signalled."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conformance.homeserver.process import LOG_TAIL, HomeserverProcess, TargetFailed, free_port

Start = Callable[[str], HomeserverProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a Python script as a homeserver."""
    processes = []

    def started(script: str) -> HomeserverProcess:
        process = HomeserverProcess("toy", [sys.executable, "-u", "-c", script], tmp_path, tmp_path / "log")
        process.start()
        processes.append(process)
        return process

    yield started
    for process in processes:
        process.stop(signal.SIGKILL)


def says(process: HomeserverProcess, word: str) -> None:
    """Wait until the log has a word."""
    process.wait_until(lambda: word in process.log.read_text(encoding="utf-8"), 20.0)


def runs(pid: int) -> bool:
    """Whether a process runs and is not merely waited for."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_a_child_that_dies_at_its_start_shows_its_last_log_lines(start: Start) -> None:
    process = start("for n in range(40): print('line', n)\nraise SystemExit(3)")
    with pytest.raises(TargetFailed) as error:
        process.wait_until(lambda: False, 20.0)
    first, *lines = str(error.value).splitlines()
    assert first == "toy ended while starting (exit status 3); its last log lines:"
    assert lines == [f"    line {number}" for number in range(40 - LOG_TAIL, 40)]


def test_a_child_that_dies_silently_is_said_to_have_written_no_log(start: Start) -> None:
    with pytest.raises(TargetFailed, match=r"ended while starting \(exit status 1\); it wrote no log"):
        start("raise SystemExit(1)").wait_until(lambda: False, 20.0)


def test_a_child_that_is_never_ready_is_given_up(start: Start) -> None:
    process = start("import time\nprint('booting')\ntime.sleep(60)")
    says(process, "booting")
    with pytest.raises(TargetFailed, match=r"was not ready within 0\.1 s; its last log lines:\n    booting"):
        process.wait_until(lambda: False, 0.1)
    assert process.alive


def test_a_command_that_cannot_be_run_is_said(tmp_path: Path) -> None:
    process = HomeserverProcess("toy", ["/no/such/program"], tmp_path, tmp_path / "log")
    with pytest.raises(TargetFailed, match="toy could not be started: /no/such/program: No such file"):
        process.start()
    assert not process.alive
    process.stop()


def test_a_log_that_is_not_utf8_is_shown_with_escapes_and_long_lines_cut(start: Start) -> None:
    process = start("import os\nos.write(1, b'\\xff' + b'x' * 5000 + b'\\n')")
    with pytest.raises(TargetFailed) as error:
        process.wait_until(lambda: False, 20.0)
    assert "\\xffxxx" in str(error.value)
    assert len(str(error.value)) < 500


def test_output_of_a_second_life_comes_after_that_of_the_first(start: Start, tmp_path: Path) -> None:
    for word in ("first", "second"):
        with pytest.raises(TargetFailed):
            start(f"print('{word}')").wait_until(lambda: False, 20.0)
    assert (tmp_path / "log").read_text(encoding="utf-8").split() == ["first", "second"]


def test_an_orderly_end_is_a_sigterm(start: Start) -> None:
    process = start(
        "import signal, sys, time\n"
        "def end(*_): print('tidied up'); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\nprint('ready')\ntime.sleep(60)"
    )
    says(process, "ready")
    process.stop()
    assert "tidied up" in process.log.read_text(encoding="utf-8")
    assert not process.alive
    assert process.pid is None


def test_what_does_not_end_by_itself_is_killed(start: Start) -> None:
    process = start(
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready')\ntime.sleep(60)"
    )
    says(process, "ready")
    pid = process.pid
    assert pid is not None
    began = time.monotonic()
    process.stop(within=0.3)
    assert 0.3 <= time.monotonic() - began < 5
    assert not runs(pid)


def test_a_crash_is_a_sigkill_at_once(start: Start) -> None:
    process = start(
        "import signal, time\nsignal.signal(signal.SIGTERM, lambda *_: print('asked'))\nprint('ready')\ntime.sleep(60)"
    )
    says(process, "ready")
    process.stop(signal.SIGKILL)
    assert "asked" not in process.log.read_text(encoding="utf-8")


def test_the_childrens_workers_end_with_it(start: Start) -> None:
    process = start(
        "import subprocess, sys\n"
        "worker = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print('worker', worker.pid, '.')\nworker.wait()"
    )
    says(process, " .")
    worker = int(process.log.read_text(encoding="utf-8").split()[1])
    assert runs(worker)
    process.stop()
    deadline = time.monotonic() + 10
    while runs(worker) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not runs(worker)


def test_nothing_else_is_signalled(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    signalled: list[tuple[int, int]] = []
    real = os.killpg

    def killpg(group: int, sign: int) -> None:
        signalled.append((group, sign))
        real(group, sign)

    monkeypatch.setattr(os, "killpg", killpg)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as bystander:
        process = start("import time\ntime.sleep(60)")
        pid = process.pid
        assert pid is not None
        assert os.getpgid(pid) == pid != os.getpgid(0)
        process.stop()
        process.stop()
        assert signalled == [(pid, signal.SIGTERM)]
        assert bystander.poll() is None
        bystander.terminate()


def test_a_child_that_has_ended_is_not_signalled(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    process = start("pass")
    with contextlib.suppress(TargetFailed):
        process.wait_until(lambda: False, 20.0)
    monkeypatch.setattr(os, "killpg", lambda *_: pytest.fail("somebody else may have the number by now"))
    process.stop()


def test_a_free_port_is_free() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", free_port()))
