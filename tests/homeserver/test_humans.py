"""Ordinary users get in by whatever door the homeserver has; a closed one is one clear reason."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request
from werkzeug import Response as Reply

from conformance.homeserver.client import Client
from conformance.homeserver.humans import Admission, Humans
from conformance.homeserver.process import free_port
from conformance.homeserver.signup import Signup
from conformance.homeserver.users import Names
from conformance.verdict import Blocked, Inconclusive
from conformance.wire.journal import Journal
from conformance.wire.redaction import Redactor

REGISTER = "/_matrix/client/v3/register"
DUMMY, TOKEN, MAIL = "m.login.dummy", "m.login.registration_token", "m.login.email.identity"


class Registration:
    """User-interactive registration as a homeserver does it."""

    def __init__(self, *flows: list[str], reserved: str = "hqa-", late: bool = False) -> None:
        self.flows = flows
        self.reserved = reserved
        #: Whether a reserved name is refused only after authentication.
        self.late = late
        self.made: list[str] = []
        self.tried: list[dict[str, Any]] = []
        self._done: dict[str, list[str]] = {}

    def __call__(self, request: Request) -> Reply:
        """Answer one step."""
        body = request.get_json()
        self.tried.append(body)
        name, auth = body["username"], body.get("auth") or {}
        exclusive = name.startswith(self.reserved)
        if exclusive and not self.late:
            return self._reply(400, {"errcode": "M_EXCLUSIVE"})
        session = auth.get("session") or f"session{len(self._done)}"
        done = self._done.setdefault(session, [])
        if auth.get("type") == DUMMY or (auth.get("type") == TOKEN and auth.get("token") == "letmein"):
            done.append(auth["type"])
        if not any(set(flow) <= set(done) and done for flow in self.flows):
            flows = [{"stages": flow} for flow in self.flows]
            return self._reply(401, {"flows": flows, "session": session, "completed": done, "params": {}})
        if exclusive:
            return self._reply(400, {"errcode": "M_EXCLUSIVE"})
        self.made.append(name)
        return self._reply(200, {"user_id": f"@{name}:hs", "access_token": f"token of {name}", "device_id": "D"})

    def _reply(self, status: int, content: object) -> Reply:
        return Reply(json.dumps(content), status, {"Content-Type": "application/json"})


@pytest.fixture
def client(httpserver: HTTPServer) -> Iterator[Client]:
    made = Client(httpserver.url_for(""), Journal())
    yield made
    made.close()


@pytest.fixture
def redactor() -> Redactor:
    return Redactor()


def humans(client: Client, redactor: Redactor, **admission: Any) -> Humans:
    return Humans(client, Names(), redactor, Admission(**admission))


def serve(httpserver: HTTPServer, registration: Registration) -> Registration:
    httpserver.expect_request(REGISTER, method="POST").respond_with_handler(registration)
    return registration


@pytest.mark.parametrize("flows", [[[DUMMY]], [[MAIL], [DUMMY]], [["m.login.msisdn", DUMMY], [DUMMY], [MAIL, DUMMY]]])
def test_open_registration_takes_the_dummy_flow(
    client: Client, redactor: Redactor, httpserver: HTTPServer, flows: list[list[str]]
) -> None:
    registration = serve(httpserver, Registration(*flows))
    human = humans(client, redactor)[0]
    assert human.user_id == f"@{registration.made[0]}:hs"
    assert human.token == f"token of {registration.made[0]}"
    assert human.party == "H"
    assert not human.asserted


def test_registration_without_authentication_works_too(
    client: Client, redactor: Redactor, httpserver: HTTPServer
) -> None:
    httpserver.expect_request(REGISTER).respond_with_json({"user_id": "@h:hs", "access_token": "t"})
    assert humans(client, redactor)[0].user_id == "@h:hs"
    assert len(httpserver.log) == 1


def test_the_first_step_has_no_authentication_and_a_long_password(
    client: Client, redactor: Redactor, httpserver: HTTPServer
) -> None:
    registration = serve(httpserver, Registration([DUMMY]))
    _ = humans(client, redactor)[0]
    first, second = registration.tried
    assert set(first) == {"username", "password"}
    assert len(first["password"]) >= 12
    assert second["password"] == first["password"]
    assert second["auth"] == {"type": DUMMY, "session": "session0"}


@pytest.mark.parametrize("flows", [[[TOKEN]], [[TOKEN, DUMMY]], [[MAIL], [TOKEN, DUMMY]]])
def test_a_registration_token_opens_the_flows_that_ask_for_it(
    client: Client, redactor: Redactor, httpserver: HTTPServer, flows: list[list[str]]
) -> None:
    registration = serve(httpserver, Registration(*flows))
    assert humans(client, redactor, registration_token="letmein")[0].user_id == f"@{registration.made[0]}:hs"


def test_a_registration_token_does_no_harm_where_none_is_asked_for(
    client: Client, redactor: Redactor, httpserver: HTTPServer
) -> None:
    serve(httpserver, Registration([DUMMY]))
    assert humans(client, redactor, registration_token="letmein")[0].user_id


@pytest.mark.parametrize("flow", [[MAIL], [TOKEN], [DUMMY, "m.login.terms"]])
def test_a_flow_nobody_can_go_through_is_said_with_what_to_do(
    client: Client, redactor: Redactor, httpserver: HTTPServer, flow: list[str]
) -> None:
    registration = serve(httpserver, Registration(flow))
    with pytest.raises(Inconclusive, match=f"asks for .*{flow[-1]}.*give --hs-user"):
        _ = humans(client, redactor)[0]
    assert registration.made == []


def test_closed_registration_is_one_clear_reason_and_asked_once(
    client: Client, redactor: Redactor, httpserver: HTTPServer
) -> None:
    httpserver.expect_request(REGISTER).respond_with_json({"errcode": "M_FORBIDDEN"}, status=403)
    all_of_them = humans(client, redactor)
    reasons = set()
    for index in (0, 1, 0):
        with pytest.raises(Inconclusive) as error:
            _ = all_of_them[index]
        reasons.add(error.value.reason)
    (reason,) = reasons
    assert "403 M_FORBIDDEN" in reason
    assert "--hs-registration-shared-secret" in reason
    assert len(httpserver.log) == 1


def test_a_homeserver_that_does_not_answer_is_inconclusive_and_asked_again() -> None:
    port = free_port()
    journal = Journal()
    all_of_them = Humans(Client(f"http://127.0.0.1:{port}", journal), Names(), Redactor())
    for _ in range(2):
        with pytest.raises(Inconclusive, match="the connection was refused"):
            _ = all_of_them[0]
    assert len(journal) == 2


def test_each_human_is_made_once_and_when_first_asked_for(
    client: Client, redactor: Redactor, httpserver: HTTPServer
) -> None:
    registration = serve(httpserver, Registration([DUMMY]))
    all_of_them = humans(client, redactor)
    assert registration.made == []
    assert all_of_them[1] is all_of_them[1]
    assert all_of_them[0] is not all_of_them[1]
    assert len(registration.made) == 2
    assert [all_of_them[index].party for index in (0, 1)] == ["H", "H1"]


def test_a_shared_secret_is_used_as_synapse_wants_it(
    client: Client, redactor: Redactor, httpserver: HTTPServer
) -> None:
    path = "/_synapse/admin/v1/register"
    httpserver.expect_request(path, method="GET").respond_with_json({"nonce": "n0nce"})
    httpserver.expect_request(path, method="POST").respond_with_json({"user_id": "@h:hs", "access_token": "t"})
    assert humans(client, redactor, shared_secret="s3cret")[0].user_id == "@h:hs"
    body = httpserver.log[1][0].get_json()
    text = b"\0".join(part.encode() for part in ("n0nce", body["username"], body["password"], "notadmin"))
    assert body["mac"] == hmac.new(b"s3cret", text, hashlib.sha1).hexdigest()
    assert body["admin"] is False


def test_given_users_log_in_first_then_given_tokens_then_registration(
    client: Client, redactor: Redactor, httpserver: HTTPServer
) -> None:
    httpserver.expect_request("/_matrix/client/v3/login").respond_with_json(
        {"user_id": "@given:hs", "access_token": "by login"}
    )
    httpserver.expect_request("/_matrix/client/v3/account/whoami").respond_with_json({"user_id": "@token:hs"})
    serve(httpserver, Registration([DUMMY]))
    all_of_them = humans(client, redactor, logins=(("given", "pass:word"),), tokens=("by hand",))
    assert [all_of_them[index].user_id for index in (0, 1)] == ["@given:hs", "@token:hs"]
    assert [all_of_them[index].token for index in (0, 1)] == ["by login", "by hand"]
    assert all_of_them[2].user_id.startswith("@human-")
    assert httpserver.log[0][0].get_json() == {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": "given"},
        "password": "pass:word",
    }
    assert httpserver.log[1][0].headers["Authorization"] == "Bearer by hand"


def test_a_given_token_that_is_not_known_is_said_without_showing_it(
    client: Client, redactor: Redactor, httpserver: HTTPServer
) -> None:
    httpserver.expect_request("/_matrix/client/v3/account/whoami").respond_with_json({}, status=401)
    with pytest.raises(Inconclusive, match="a token given by --hs-user-token is not known: 401") as error:
        _ = humans(client, redactor, tokens=("s3cret",))[0]
    assert "s3cret" not in str(error.value)


def test_passwords_and_tokens_of_humans_are_secrets(client: Client, redactor: Redactor, httpserver: HTTPServer) -> None:
    registration = serve(httpserver, Registration([DUMMY]))
    human = humans(client, redactor)[0]
    assert {human.token, registration.tried[0]["password"]} <= redactor.secrets


# The first step of a registration, which says whether a name is reserved


@pytest.fixture
def signup(client: Client, redactor: Redactor) -> Signup:
    return Signup(client, Names(), redactor)


@pytest.mark.parametrize(
    ("status", "body", "exclusive", "proceeds"),
    [
        (400, {"errcode": "M_EXCLUSIVE"}, True, False),
        (403, {"errcode": "M_EXCLUSIVE"}, True, False),
        (401, {"flows": [{"stages": [DUMMY]}], "session": "s"}, False, True),
        (401, {"flows": [{"stages": [DUMMY]}], "session": "s", "errcode": "M_EXCLUSIVE"}, False, True),
        (200, {"user_id": "@x:hs"}, False, True),
        (400, {"errcode": "M_INVALID_USERNAME"}, False, False),
        (403, {"errcode": "M_FORBIDDEN"}, False, False),
        (401, {"errcode": "M_UNAUTHORIZED"}, False, False),
        (500, {"errcode": "M_EXCLUSIVE"}, False, False),
        (200, {"errcode": "M_EXCLUSIVE"}, False, True),
    ],
)
def test_the_first_step_refuses_a_name_as_exclusive_or_proceeds_or_neither(
    signup: Signup, httpserver: HTTPServer, status: int, body: object, exclusive: bool, proceeds: bool
) -> None:
    httpserver.expect_request(REGISTER).respond_with_json(body, status=status)
    attempt = signup.first("hqa-x")
    assert (attempt.exclusive, attempt.proceeds) == (exclusive, proceeds)
    assert str(status) in str(attempt)
    assert len(httpserver.log) == 1


def test_a_rate_limit_without_end_decides_nothing(signup: Signup, httpserver: HTTPServer) -> None:
    httpserver.expect_request(REGISTER).respond_with_json({"retry_after_ms": 10_000_000}, status=429)
    with pytest.raises(Inconclusive, match="limits the rate of POST"):
        signup.first("hqa-x")


def test_a_registration_is_finished_where_there_is_something_to_finish(signup: Signup, httpserver: HTTPServer) -> None:
    registration = serve(httpserver, Registration([DUMMY]))
    assert signup.finish(signup.first("free")).ok
    refused = signup.first("hqa-x")
    assert signup.finish(refused) is refused.response
    assert registration.made == ["free"]


def test_a_name_that_is_refused_late_is_refused_in_the_last_answer(signup: Signup, httpserver: HTTPServer) -> None:
    registration = serve(httpserver, Registration([DUMMY], late=True))
    attempt = signup.first("hqa-x")
    assert attempt.proceeds
    assert signup.finish(attempt).errcode == "M_EXCLUSIVE"
    assert registration.made == []


def test_controls_are_made_once(signup: Signup, httpserver: HTTPServer) -> None:
    registration = serve(httpserver, Registration([DUMMY]))
    for _ in range(3):
        signup.must_reserve("hqa-")
    assert len(registration.tried) == 2
    assert registration.made == []


def test_a_closed_homeserver_says_nothing_about_names(signup: Signup, httpserver: HTTPServer) -> None:
    httpserver.expect_request(REGISTER).respond_with_json({"errcode": "M_FORBIDDEN"}, status=403)
    for _ in range(2):
        with pytest.raises(Inconclusive, match="registers no humans: an ordinary name is answered 403 M_FORBIDDEN"):
            signup.must_reserve("hqa-")
    assert len(httpserver.log) == 1


def test_a_homeserver_that_checks_late_or_never_blocks_what_rests_on_the_first_step(
    signup: Signup, httpserver: HTTPServer
) -> None:
    serve(httpserver, Registration([DUMMY], late=True))
    with pytest.raises(Blocked, match="NSUSER-02") as error:
        signup.must_reserve("hqa-")
    assert error.value.evidence
    with pytest.raises(Blocked, match="REG-08"):
        signup.must_reserve("hqb-", otherwise="REG-08")
