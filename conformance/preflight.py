"""Before the checks: can this homeserver be tested at all? If not, say whose fault it is and what helps."""

from __future__ import annotations

import secrets

from conformance.appservice.roster import LATE
from conformance.catalogue.versions import newest
from conformance.homeserver.client import CLIENT, NoAnswer, Response, segment
from conformance.homeserver.process import TargetFailed
from conformance.run import Run
from conformance.verdict import Inconclusive


def preflight(run: Run) -> None:
    """Learn who the homeserver is, which registrations it has loaded, and that it reaches the fleet.

    :raises TargetFailed: nothing can be tested; the message says what to do.
    """
    if run.client.dialect.lists_versions:
        _versions(run)
    else:
        _login(run)
    _rejects_strangers(run)
    if run.client.dialect.admission is None:
        _registrations(run)
        run.fleet.connect(run.client, run.names, run.server_name)
    else:
        _enrolments(run)
    _software(run)
    _reaches_the_fleet(run)


def _login(run: Run) -> None:
    """Make sure that there is a homeserver of a time without `/versions`."""
    path = run.client.dialect.placed(f"{CLIENT}/login")
    answer = _ask(run, path)
    if not answer.ok or not isinstance(answer.json.get("flows"), list):
        raise TargetFailed(
            f"{run.client.base_url} is no homeserver of that time, or its client-server API is elsewhere: GET {path} "
            f"was answered {answer}; --hs-client-path says where it is"
        )


def _enrolments(run: Run) -> None:
    """Have the appservices register themselves, but for those that do so in a check (drafts: Registration).

    DRAFT-REG-01 judges the answers; here they only say what can be tested.
    """
    try:
        run.server_name = run.humans[0].server_name
    except Inconclusive as error:
        raise TargetFailed(f"nothing can be tested: {error.reason}") from error
    run.fleet.connect(run.client, run.names, run.server_name)
    refusals = []
    for member in run.fleet:
        if member.code in LATE:
            continue
        try:
            answer = run.enroll(member)
        except NoAnswer as error:
            raise TargetFailed(f"the homeserver at {run.client.base_url} does not answer: {error}") from error
        if not answer.ok or not isinstance(answer.json.get("hs_token"), str):
            refusals.append(answer)
            run.unloaded[member.code] = f"appservice {member.code} could not register itself: answered {answer}"
    if len(refusals) == len([member for member in run.fleet if member.code not in LATE]):
        raise TargetFailed(
            f"no appservice could register itself: POST {run.client.dialect.admin_path('register')} was answered "
            f"{refusals[0]}. The homeserver's administrator has to store each as_token of the registration files "
            "first; --hs-appservice-path says where the path is another"
        )


def _versions(run: Run) -> None:
    where = run.client.base_url
    answer = _ask(run, "/_matrix/client/versions")
    versions = answer.json.get("versions")
    if not answer.ok:
        raise TargetFailed(
            f"{where} is no Matrix homeserver, or not its client-server API: "
            f"GET /_matrix/client/versions was answered {answer.status}"
        )
    if not isinstance(versions, list) or not all(isinstance(each, str) for each in versions):
        kind = next(iter(answer.exchange.response_header("Content-Type")), "no content type")
        raise TargetFailed(
            f"{where} is no Matrix homeserver: GET /_matrix/client/versions was answered without a list of versions "
            f"({kind})"
        )
    run.claimed = tuple(versions)
    if run.version is None and newest(versions) is None:
        run.notes.append(f"the homeserver claims no version that is known here ({', '.join(versions) or 'none'})")


def _rejects_strangers(run: Run) -> None:
    answer = _ask(run, f"{CLIENT}/account/whoami", token=f"hq-stranger-{secrets.token_hex(8)}")
    if answer.ok:
        raise TargetFailed(
            f"{run.client.base_url} answers {answer.status} to a token that nobody has: it is no homeserver, or "
            "something in front of it answers for it"
        )


def _registrations(run: Run) -> None:
    """Ask who each sender is. REG-01 judges the answers; here they only say what can be tested."""
    refusal = ""
    for member in run.fleet:
        expected = f"@{member.registration.sender_localpart}:"
        answer = _ask(run, f"{CLIENT}/account/whoami", token=member.registration.as_token, party=member.code)
        user_id = answer.json.get("user_id")
        if answer.ok and isinstance(user_id, str) and user_id.startswith(expected):
            run.server_name = run.server_name or user_id.partition(":")[2]
        else:
            refusal = refusal or str(answer)
            run.unloaded[member.code] = (
                f"the registration {member.registration.id!r} of appservice {member.code} is not loaded: "
                f"whoami was answered {answer}"
            )
    if not run.server_name:
        raise TargetFailed(
            f"the homeserver has loaded none of the fleet's registrations (whoami with an as_token: {refusal}): "
            "load the files of --as-registrations into it, restart it, and see "
            "`as-conformance registrations --help` for how"
        )
    if "V1" in run.fleet:
        own = run.fleet["V1"].registration
        sample = f"@hqv1-x:{run.server_name}"
        if own.users and not any(entry.matches(sample) for entry in own.users):
            raise TargetFailed(
                f"the registrations were written for another server name than {run.server_name}: write them again "
                f"with --server-name {run.server_name}"
            )


def _software(run: Run) -> None:
    """Name and version: the federation API's answer where it is served, else the Server header."""
    answer = _ask(run, "/_matrix/federation/v1/version")
    server = answer.json.get("server")
    if isinstance(server, dict) and isinstance(server.get("name"), str):
        version = server.get("version")
        run.software = (server["name"], version if isinstance(version, str) else None)
        return
    name, _, version = next(iter(answer.exchange.response_header("Server")), "").partition("/")
    run.software = (name or run.target.name, version.partition(" ")[0] or None)


def _reaches_the_fleet(run: Run) -> None:
    """Give the homeserver several reasons to call several appservices; one request of any kind is enough."""
    if not any(member.listener for member in run.fleet):
        return
    marker = run.journal.marker()
    stimuli = [_a_message_among_ghosts, _a_message_for_the_sender]
    stimuli.append(_a_ping if run.client.dialect.has_ping else _an_invite)
    for stimulus in stimuli:
        for member in run.fleet:
            if member.code in ("A", "B", "S") and member.code not in run.unloaded:
                try:
                    stimulus(run, member.code)
                except (Inconclusive, NoAnswer):
                    continue  # whatever fails here has a requirement of its own
        if _a_request_arrived(run, marker, 2.0):
            return
    if not _a_request_arrived(run, marker, run.budgets.deliver):
        urls = " and ".join(run.fleet[code].registration.url or "" for code in ("A", "B") if code in run.fleet)
        raise TargetFailed(
            f"no request of the homeserver reached the fleet within {run.budgets.deliver:g} s, though events of "
            f"interest were sent and pings asked for: can the homeserver reach {urls}? (In a container it needs "
            "another --as-url in its registrations and --as-bind here; some servers refuse loopback addresses.)"
        )


def _a_message_among_ghosts(run: Run, code: str) -> None:
    ghost = run.fleet[code].ghost()
    ghost.send(ghost.create_room())


def _a_message_for_the_sender(run: Run, code: str) -> None:
    human = run.humans[0]
    room = human.create_room()
    run.fleet[code].sender.join(room)
    human.send(room)


def _an_invite(run: Run, code: str) -> None:
    human = run.humans[0]
    human.provoke(
        "POST",
        f"/rooms/{segment(human.create_room())}/invite",
        json={"user_id": run.fleet[code].unregistered().user_id},
        timeout=run.budgets.deliver,
    )


def _a_ping(run: Run, code: str) -> None:
    member = run.fleet[code]
    path = f"/_matrix/client/v1/appservice/{member.registration.id.replace(' ', '%20')}/ping"
    member.sender.call("POST", path, json={})


def _a_request_arrived(run: Run, marker: int, within: float) -> bool:
    return run.journal.wait_for(lambda exchange: exchange.direction == "to-appservice", marker, within) is not None


def _ask(run: Run, path: str, token: str | None = None, party: str = "suite") -> Response:
    try:
        return run.client.call("GET", path, party=party, token=token, timeout=15.0)
    except Inconclusive as error:
        raise TargetFailed(error.reason) from error
    except NoAnswer as error:
        if run.client.base_url.startswith("http://") and "valid HTTP" in (error.exchange.failure or ""):
            hint = "; does it speak https?"
        else:
            hint = ""
        raise TargetFailed(
            f"the homeserver at {run.client.base_url} does not answer: GET {path}: {error.exchange.failure}{hint}"
        ) from error
