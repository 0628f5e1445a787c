"""The fleet's ports."""

from __future__ import annotations

import socket

import pytest

from conformance.appservice.fleet import Fleet
from conformance.appservice.registration import BadRegistration
from conformance.appservice.roster import ROSTER, enlist, free_ports
from conformance.wire.journal import Journal


def fleet(port: int) -> Fleet:
    """The appservice that can never be reached, alone."""
    roles = [role for role in ROSTER if not role.listens]
    return Fleet(enlist("hq.test", "http://127.0.0.1", iter([port]), roles), Journal())


def listening(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen()
    return listener


def test_a_dead_port_that_an_earlier_run_had_connections_on_can_be_had() -> None:
    port = next(free_ports("127.0.0.1"))
    with listening(port) as listener, socket.create_connection(("127.0.0.1", port)) as client:
        served, _ = listener.accept()
        served.close()  # this end closes first: the port stays in TIME_WAIT
        assert client.recv(1) == b""
    dead = fleet(port)
    dead.start()
    try:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        with pytest.raises(OSError, match="Address already in use"):
            listening(port)
    finally:
        dead.stop()


def test_a_dead_port_that_somebody_listens_on_is_refused() -> None:
    port = next(free_ports("127.0.0.1"))
    with listening(port), pytest.raises(BadRegistration, match=f"port {port} .* cannot be listened on"):
        fleet(port).start()
