"""Journals recorded from the reference homeserver, with and without defects: what judges have to see and not to see.

``python -m tests.judges.recorded`` records them anew into fixtures/journals.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from conformance.schemas import data_dir
from conformance.wire.exchange import Exchange
from conformance.wire.jsonl import read

#: The requirements whose checks make each journal; the name is the defect's.
RECORDED = {
    "good": "AUTH-01,AUTH-12,TXN-10,TXN-12,RETRY-05,ORDER-02,ORDER-03",
    "transactions-have-no-token": "AUTH-01",
    "the-query-has-another-token": "AUTH-07",
    "all-get-the-token-of-the-first": "AUTH-06",
    "transactions-are-posted": "TXN-01",
    "transactions-are-plain-text": "TXN-02",
    "events-have-no-room-id": "TXN-04",
    "ages-are-text": "TXN-08",
    "ids-are-seconds": "TXN-10",
    "events-are-queued-twice": "TXN-16",
    "the-last-transaction-comes-again": "TXN-18",
    "retries-have-ids-of-their-own": "TXN-11",
    "queues-are-flushed-into-retries": "TXN-13",
    "queues-keep-event-ids-only": "TXN-14",
    "backoff-is-constant": "RETRY-05",
    "no-backoff-at-all": "RETRY-06",
    "transactions-overlap": "ORDER-03",
    "every-twentieth-event-is-late": "ORDER-01",
}


def path(name: str) -> Path:
    """The file of a journal."""
    return data_dir("fixtures") / "journals" / f"{name}.jsonl"


def journal(name: str) -> list[Exchange]:
    """A recorded journal."""
    return read(path(name))


def record(name: str) -> None:
    """Record a journal anew."""
    with tempfile.TemporaryDirectory() as directory:
        words = ["--hs", "reference", "--only", RECORDED[name], "--conformance-report", directory]
        words += ["--defect", name] if name != "good" else []
        subprocess.run([sys.executable, "-m", "pytest", "-q", *words], cwd=directory, check=False)
        path(name).write_bytes((Path(directory) / "journal.jsonl").read_bytes())


if __name__ == "__main__":
    for each in sys.argv[1:] or RECORDED:
        record(each)
