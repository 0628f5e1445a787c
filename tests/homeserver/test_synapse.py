"""The real Synapse as a target."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from conformance.appservice.registration import Registration
from conformance.appservice.roster import enlist, free_ports
from conformance.homeserver.synapse import Synapse
from conformance.homeserver.target import SERVER_NAME

pytestmark = pytest.mark.synapse


def fleet() -> list[Registration]:
    """Registrations of a run."""
    return enlist(SERVER_NAME, "http://127.0.0.1", free_ports("127.0.0.1"))


@pytest.fixture(scope="module")
def synapse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Synapse]:
    """A running Synapse."""
    target = Synapse(tmp_path_factory.mktemp("synapse"), fleet())
    target.start()
    yield target
    target.stop()


def sender_of(target: Synapse, registration: Registration) -> object:
    """Who an as_token is."""
    headers = {"Authorization": f"Bearer {registration.as_token}"}
    answer = requests.get(f"{target.url}/_matrix/client/v3/account/whoami", headers=headers, timeout=10)
    return answer.json().get("user_id")


def test_it_has_loaded_every_registration(synapse: Synapse) -> None:
    senders = [sender_of(synapse, each) for each in synapse.registrations]
    assert senders == [f"@{each.sender_localpart}:{SERVER_NAME}" for each in synapse.registrations]


def test_everything_it_writes_is_in_its_directory(synapse: Synapse) -> None:
    names = {path.name for path in synapse.directory.iterdir()}
    assert {"homeserver.yaml", "homeserver.db", "homeserver.log", "signing.key", "registrations"} <= names


def test_it_listens_on_loopback_only_and_federates_with_nobody(synapse: Synapse) -> None:
    config = json.loads((synapse.directory / "homeserver.yaml").read_text())
    assert [listener["bind_addresses"] for listener in config["listeners"]] == [["127.0.0.1"]]
    assert config["federation_domain_whitelist"] == []
    assert config["trusted_key_servers"] == []


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_it_comes_back_with_its_data_after_a_restart(synapse: Synapse, how: signal.Signals) -> None:
    name = f"before-{how.name.lower()}"
    register = {"type": "m.login.application_service", "username": f"hqa-{name}", "inhibit_login": True}
    headers = {"Authorization": f"Bearer {synapse.registrations[0].as_token}"}
    url = f"{synapse.url}/_matrix/client/v3/register"
    assert requests.post(url, json=register, headers=headers, timeout=10).status_code == 200
    synapse.restart(how, lambda: None)
    assert requests.post(url, json=register, headers=headers, timeout=10).json()["errcode"] == "M_USER_IN_USE"


def test_several_run_at_once_and_end_when_told(tmp_path: Path) -> None:
    with ExitStack() as stack:
        targets = []
        for name in ("one", "two"):
            directory = tmp_path / name
            directory.mkdir()
            targets.append(Synapse(directory, fleet()))
            targets[-1].start()
            stack.callback(targets[-1].stop)
        assert len({target.port for target in targets}) == 2
        assert all(sender_of(target, target.registrations[0]) for target in targets)
        assert sender_of(targets[0], targets[1].registrations[0]) is None
        targets[0].stop()
        assert not targets[0].alive()
        assert targets[1].alive()
