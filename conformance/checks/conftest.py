"""What the checks speak of: the appservices by their codes, the humans, and the run."""

from __future__ import annotations

import pytest

from conformance.appservice.fleet import Appservice
from conformance.homeserver.signup import Signup
from conformance.homeserver.users import User
from conformance.lanes.lane import Lanes
from conformance.run import Run
from conformance.running import run_key


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Run:
    """The conformance run: budgets, reading, journal, server name."""
    return request.config.stash[run_key]


@pytest.fixture
def a(run: Run) -> Appservice:
    """A, the healthy appservice that most rows use. Never made to fail a transaction."""
    return run.appservice("A")


@pytest.fixture
def b(run: Run) -> Appservice:
    """B, a second healthy appservice whose namespaces overlap A's. Never made to fail a transaction."""
    return run.appservice("B")


@pytest.fixture
def c(run: Run) -> Appservice:
    """C, interested in about half of all rooms by their IDs. Never made to fail a transaction."""
    return run.appservice("C")


@pytest.fixture
def d(run: Run) -> Appservice:
    """D, which can never be reached."""
    return run.appservice("D")


@pytest.fixture
def n(run: Run) -> Appservice:
    """N, whose url is null."""
    return run.appservice("N")


@pytest.fixture
def q(run: Run) -> Appservice:
    """Q, which answers queries."""
    return run.appservice("Q")


@pytest.fixture
def legacy(run: Run) -> Appservice:
    """L, which knows the legacy routes only; its transactions belong to its lane."""
    return run.appservice("L")


@pytest.fixture
def v1(run: Run) -> Appservice:
    """V1, whose regex ends in the server name; the first that is made to fail."""
    return run.appservice("V1")


@pytest.fixture
def v4(run: Run) -> Appservice:
    """V4, which receives ephemeral data as A does; made to fail for long once its lane begins."""
    return run.appservice("V4")


@pytest.fixture
def x(run: Run) -> Appservice:
    """X, which is rate limited and whose url ends in a slash."""
    return run.appservice("X")


@pytest.fixture
def human(run: Run) -> User:
    """H, an ordinary user (or a stand-in)."""
    return run.humans.on_duty()


@pytest.fixture
def human1(run: Run) -> User:
    """H1, another ordinary user."""
    return run.humans[1]


@pytest.fixture
def human2(run: Run) -> User:
    """H2, a third ordinary user."""
    return run.humans[2]


@pytest.fixture
def human3(run: Run) -> User:
    """H3, a fourth ordinary user, who shares no room with anybody unless a check says so."""
    return run.humans[3]


@pytest.fixture
def lanes(run: Run) -> Lanes:
    """What the lanes have observed: `lanes[V1].first.get()`."""
    return run.lanes


@pytest.fixture
def signup(run: Run) -> Signup:
    """The registration of humans, step by step."""
    return run.humans.signup
