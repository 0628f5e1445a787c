"""Human registration, step by step (CS: Account registration).

Whether a name is reserved shows at the first, unauthenticated ``POST /register``: M_EXCLUSIVE, or the flows of
user-interactive authentication. So a check hardly ever has to create an account.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from conformance.homeserver.client import CLIENT, Client, Response
from conformance.homeserver.users import Names
from conformance.verdict import Blocked, Inconclusive
from conformance.wire.exchange import Exchange
from conformance.wire.redaction import Redactor

_DUMMY = "m.login.dummy"
_TOKEN = "m.login.registration_token"


@dataclass(frozen=True)
class Attempt:
    """A human's first step towards an account, and what the homeserver said to it."""

    localpart: str
    response: Response
    #: What was sent; the later steps repeat it.
    body: Mapping[str, Any]
    #: The stages of a flow that the suite can go through; None: there is none, or there are no flows at all.
    stages: tuple[str, ...] | None = None

    @property
    def exchange(self) -> Exchange:
        """The exchange that shows it."""
        return self.response.exchange

    @property
    def flows(self) -> list[Any] | None:
        """The flows of user-interactive authentication that were offered."""
        flows = self.response.json.get("flows")
        return flows if self.response.status == 401 and isinstance(flows, list) else None

    @property
    def proceeds(self) -> bool:
        """The name was not refused: there is an account now, or the way to one."""
        return self.response.ok or self.flows is not None

    @property
    def exclusive(self) -> bool:
        """The name was refused with M_EXCLUSIVE."""
        return self.response.refused and self.flows is None and self.response.errcode == "M_EXCLUSIVE"

    def __str__(self) -> str:
        """What the homeserver said, for messages."""
        return f"{self.response} with flows" if self.flows is not None else str(self.response)


@dataclass
class Signup:
    """Registration of humans on one homeserver."""

    client: Client
    names: Names
    redactor: Redactor
    #: `--hs-registration-token`
    token: str | None = None
    _ordinary: Attempt | None = field(default=None, init=False)
    _reserved: dict[str, Attempt] = field(default_factory=dict, init=False)

    def first(self, localpart: str, party: str = "human", more: Mapping[str, Any] | None = None) -> Attempt:
        """The first step: a name and a password, no authentication.

        :param more: further keys of the request.
        :raises Inconclusive: the homeserver limits the rate of registrations and cannot be waited for.
        """
        password = secrets.token_urlsafe(18)
        self.redactor.add(password, "password")
        body = {**self.client.dialect.human(localpart, password), **(more or {})}
        attempt = Attempt(localpart, self._post(body, party), body)
        return Attempt(localpart, attempt.response, body, self._walkable(attempt))

    def _walkable(self, attempt: Attempt) -> tuple[str, ...] | None:
        """The shortest flow whose stages the suite knows."""
        known = {_DUMMY, _TOKEN} if self.token else {_DUMMY}
        offered = [flow.get("stages") for flow in attempt.flows or () if isinstance(flow, dict)]
        walkable = [tuple(stages) for stages in offered if isinstance(stages, list) and known.issuperset(stages)]
        return min(walkable, key=len, default=None)

    def finish(self, attempt: Attempt, party: str = "human") -> Response:
        """The last answer of a registration: the first one, if that decided it, else what the flow ended with.

        :raises Inconclusive: no flow is offered that the suite can go through.
        """
        answer = attempt.response
        if attempt.flows is None:
            return answer
        if attempt.stages is None:
            offered = [flow.get("stages") for flow in attempt.flows if isinstance(flow, dict)]
            raise Inconclusive(
                f"human registration asks for {offered}: give --hs-user, --hs-user-token or a registration secret",
                attempt.exchange,
            )
        # Without stages there is still a step to take: the one that names the session.
        for stage in attempt.stages or (_DUMMY,):
            auth = {"type": stage, "session": answer.json.get("session")}
            if stage == _TOKEN:
                auth["token"] = self.token
            answer = self._post({**attempt.body, "auth": auth}, party)
            if answer.status != 401:
                break
        return answer

    def must_be_open(self) -> None:
        """Make sure that the homeserver registers humans at all, at least as far as the first step.

        :raises Inconclusive: an ordinary name is refused like any other.
        """
        if self._ordinary is None:
            self._ordinary = self.first(self.names.fresh("human-"))
        if not self._ordinary.proceeds:
            raise Inconclusive(
                f"the homeserver registers no humans: an ordinary name is answered {self._ordinary}",
                self._ordinary.exchange,
            )

    def must_reserve(self, prefix: str, otherwise: str | None = None) -> None:
        """Make sure that the first step says whether a name is reserved: one in a plain exclusive namespace is refused.

        :param prefix: what the names in that namespace begin with.
        :param otherwise: the requirement that is to blame when it is not; NSUSER-01 or -02 unless given.
        :raises Inconclusive: the homeserver registers no humans.
        :raises Blocked: it does not refuse the name, or only later.
        """
        self.must_be_open()
        attempt = self._reserved.get(prefix)
        if attempt is None:
            attempt = self._reserved[prefix] = self.first(self.names.fresh(prefix))
        if not attempt.exclusive:
            raise Blocked(
                otherwise or ("NSUSER-02" if attempt.proceeds else "NSUSER-01"),
                f"the first step of a registration does not say that {attempt.localpart} is reserved: {attempt}",
                attempt.exchange,
            )

    def _post(self, body: Mapping[str, Any], party: str) -> Response:
        return self.client.call("POST", f"{CLIENT}/register", party=party, json=body)
