"""Homeservers beside the target: like it, on data of their own and with appservices of their own."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from conformance.appservice import roster
from conformance.appservice.fleet import Fleet, listen
from conformance.appservice.registration import Registration
from conformance.homeserver.client import Client
from conformance.homeserver.humans import Humans
from conformance.homeserver.target import SERVER_NAME, Managed

if TYPE_CHECKING:
    from conformance.run import Run


def beside(run: Run, name: str, roles: Sequence[roster.Role], prefix: str, ends: ExitStack) -> tuple[Run, Managed]:
    """Start another homeserver, where the target is one that the suite starts.

    :param name: of its folder.
    :param roles: the appservices that it knows.
    :param prefix: what its humans are called in the journal, which is the run's.
    :param ends: ends it, and its appservices.
    :return: the same run on that homeserver, and the homeserver.
    :raises TargetEnded: it does not start.
    """
    assert run.another is not None
    host = run.fleet.bind

    def enlist() -> list[Registration]:
        return roster.enlist(SERVER_NAME, f"http://{host}", roster.free_ports(host), roles)

    def made(registrations: list[Registration]) -> Fleet:
        return Fleet(registrations, run.journal, host, run.budgets.deliver, run.client.dialect)

    registrations, fleet = listen(enlist, made)
    ends.callback(fleet.stop)
    for each in registrations:
        run.redactor.add(each.as_token, f"as_token of {each.code}")
        run.redactor.add(each.hs_token, f"hs_token of {each.code}")
    target = run.another(name, registrations)
    ends.callback(target.stop)
    target.start()
    client = Client(target.url, run.journal, run.client.dialect)
    ends.callback(client.close)
    humans = Humans(client, run.names, run.redactor, run.humans.admission, prefix=prefix, reserved=0)
    fleet.connect(client, run.names, SERVER_NAME)
    return run.beside(target, fleet, client, humans, SERVER_NAME), target
