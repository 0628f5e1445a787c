"""What the tests of the plugin share: pytest in pytest, and homeservers that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.appservice.registration import write
from conformance.appservice.roster import enlist, free_ports


@pytest.fixture
def registrations(tmp_path: Path) -> Path:
    """A directory with the fleet's registration files for hq.test."""
    directory = tmp_path / "registrations"
    write(directory, enlist("hq.test", "http://127.0.0.1", free_ports("127.0.0.1")))
    return directory
