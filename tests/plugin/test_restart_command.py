"""`--hs-restart-command`: a homeserver that somebody else runs is restarted at the end of the run."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.cli import main
from conformance.homeserver.process import HomeserverProcess, free_port
from conformance.homeserver.target import SERVER_NAME, answers
from tests.plugin.ports import free_block

#: Stops what a file names, as it is told, and starts the reference homeserver again.
CONTROL = """
import os, signal, subprocess, sys, time
from pathlib import Path

here = Path(__file__).parent
if len(sys.argv) > 2 and (here / "pid").exists():
    pid = int((here / "pid").read_text())
    os.kill(pid, getattr(signal, "SIG" + sys.argv[2]))
    while Path(f"/proc/{pid}").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text():
        time.sleep(0.01)
command = [sys.executable, "-m", "conformance.reference", "--registrations", "files", "--data", "data.jsonl"]
command += ["--server-name", "hq.test", "--port", sys.argv[1], "--time-scale", "0.05"]
child = subprocess.Popen(command, cwd=here, stdout=subprocess.DEVNULL)  # its errors go where the command's do
(here / "pid").write_text(str(child.pid))
"""

#: The waits that fit the reference.
BUDGETS = ("--backoff-wait", "12", "--deliver-wait", "5", "--quiet-wait", "0.5")


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The URL of a reference homeserver, and the command that restarts it."""
    (tmp_path / "control.py").write_text(CONTROL)
    words = ["registrations", str(tmp_path / "files"), "--server-name", SERVER_NAME, "--port-base", free_block()]
    assert main(words) == 0
    port = free_port()
    command = f"{sys.executable} {tmp_path / 'control.py'} {port}"
    first = HomeserverProcess("control", command.split(), tmp_path, tmp_path / "log")
    first.start()
    url = f"http://127.0.0.1:{port}"
    while not answers(url):
        pass
    yield url, command
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    first.stop()


@pytest.mark.parametrize("placeholder", ["{signal}", "TERM"])
def test_it_is_restarted_at_the_end(
    pytester: pytest.Pytester, tmp_path: Path, running: tuple[str, str], placeholder: str
) -> None:
    url, command = running
    result = pytester.runpytest_subprocess(
        *(
            "--hs-url",
            url,
            "--as-registrations",
            tmp_path / "files",
            "--only",
            "RESTART,RETRY-15,REG-01,TXN-10,TXN-16",
            *BUDGETS,
        ),
        *("--hs-restart-command", f"{command} {placeholder}", "--conformance-report", "report"),
    )
    assert result.ret == 0, result.stdout.str()
    content = json.loads((pytester.path / "report" / "results.json").read_text())
    verdicts = {each["id"]: each["verdict"] for each in content["requirements"] if each["verdict"] != "skipped"}
    crashes = {"RESTART-03", "RESTART-04", "RESTART-06"}
    undecided = set() if placeholder == "{signal}" else crashes
    assert {key for key, verdict in verdicts.items() if verdict == "inconclusive"} == undecided
    assert {key for key, verdict in verdicts.items() if verdict != "pass"} == undecided


def test_a_command_that_fails_is_no_fault_of_the_homeserver(
    pytester: pytest.Pytester, tmp_path: Path, running: tuple[str, str]
) -> None:
    url, _ = running
    result = pytester.runpytest_subprocess(
        *("--hs-url", url, "--as-registrations", tmp_path / "files", "--only", "RESTART-05", *BUDGETS),
        *("--hs-restart-command", f"{sys.executable} -c 'raise SystemExit(\"no such service\")'"),
    )
    assert result.ret == 1
    result.stdout.fnmatch_lines(["ERROR RESTART-05*", "*--hs-restart-command ended with 1: no such service*"])
