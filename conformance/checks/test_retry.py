"""RETRY: failure, backoff, recovery (AS: Pushing events)."""

from __future__ import annotations

from conformance.appservice.fleet import Appservice
from conformance.appservice.routes import Kind
from conformance.appservice.script import always, answer
from conformance.homeserver.client import NoAnswer, segment
from conformance.homeserver.users import User
from conformance.judges import order
from conformance.judges.backoff import HOT_SECONDS, Spacing
from conformance.judges.transactions import carries
from conformance.lanes.lane import Lanes
from conformance.lanes.outages import Outage
from conformance.lanes.queries import PATIENT
from conformance.lanes.restarts import Restarts
from conformance.lanes.v1 import V1
from conformance.lanes.v2 import V2
from conformance.lanes.v3 import V3, Timed
from conformance.lanes.v4 import V4
from conformance.lanes.v5 import V5
from conformance.lanes.v6 import V6
from conformance.requirement import requirement
from conformance.run import Run
from conformance.verdict import Blocked, Broken, control, expect, listing, prefer, record
from conformance.wire.exchange import Exchange

#: Seconds within which a call has to be answered while an appservice hangs, or ten times as many as before.
_PROMPT, _TIMES = 5.0, 10.0

#: Queries, and pings, that are refused one after the other.
_REFUSALS = 8


def _exchanges(outage: Outage, limit: int = 4) -> list[Exchange]:
    """The first attempts of an outage, as evidence."""
    return [each.first for each in outage.attempts[:limit]]


def _enough(spacing: Spacing, outage: Outage, run: Run) -> None:
    """Growth can be judged from three gaps on, and not where the first gap is a quarter of what is watched."""
    if len(spacing.times) < 2:
        raise Blocked("RETRY-01", f"there was no second attempt within {run.budgets.backoff:g} s", *_exchanges(outage))
    long = spacing.gaps[0] > run.budgets.backoff / 4
    control(not long, f"the first gap, {spacing.gaps[0]:.1f} s, is too long for --backoff-wait {run.budgets.backoff:g}")
    control(spacing.enough, f"too few gaps within {run.budgets.backoff:g} s: {spacing}", *_exchanges(outage))


@requirement("RETRY-01", lane=V1)
def test_a_failed_transaction_is_tried_again(run: Run, lanes: Lanes) -> None:
    """A transaction that was answered 500 is tried again, without any further traffic."""
    first = lanes[V1].first.get()
    evidence = _exchanges(first.outage)
    if not first.retried_by_itself and first.retried_after_traffic:
        raise Broken("a second attempt by itself", "one only after something new had been sent", *evidence)
    within = f"a second attempt within {run.budgets.backoff:g} s"
    expect(first.retried_by_itself, within, "none, not even after something new had been sent", *evidence)
    record(str(first.outage.spacing), *evidence)


@requirement("RETRY-02", lane=V2)
def test_a_transaction_whose_connection_was_reset_is_tried_again(run: Run, lanes: Lanes) -> None:
    """A transaction whose connection was accepted and reset is tried again."""
    backlog = lanes[V2].backlog.get()
    expected = f"a second attempt within {run.budgets.backoff:g} s of the reset"
    came_later = backlog.retried or bool(backlog.outage.after)
    expect(backlog.retried, expected, "one later" if came_later else "none", *_exchanges(backlog.outage))


@requirement("RETRY-03", lane=V3)
def test_a_transaction_that_is_never_answered_is_tried_again(run: Run, lanes: Lanes) -> None:
    """A transaction that was read and never answered is tried again as it was, once the homeserver has given it up."""
    hang = lanes[V3].hang.get()
    patient = run.budgets.block >= PATIENT * run.budgets.scale
    control(hang.retried or patient, f"nothing within --block-wait {run.budgets.block:g} s")
    expected = f"a second attempt within {run.budgets.block:g} s"
    expect(hang.retried, expected, "none: the homeserver goes on waiting", *_exchanges(hang.outage))
    carrying = [each for each in hang.outage.attempts if carries(each.first, hang.outage.sent[0])]
    ids = {each.txn_id for each in carrying}
    expect(len(ids) == 1, "the same ID in each attempt", f"{len(ids)} IDs", *(each.first for each in carrying[:3]))
    gap = hang.outage.spacing.gaps[0]
    record(f"the homeserver gives up and tries again after {gap:.1f} s", *_exchanges(hang.outage))


@requirement("RETRY-04", lane=V1)
def test_whatever_status_is_no_success_is_tried_again(lanes: Lanes) -> None:
    """Any status but 2xx is a failure: the event is delivered in the end, under the same ID."""
    for single in lanes[V1].statuses.get():
        evidence = [each.first for each in single.attempts[:3]]
        failed = single.attempts and not single.attempts[0].acknowledged
        control(failed, f"the transaction that was answered {single.name} was not the one with the message", *evidence)
        if not (single.delivered or single.forgotten):
            raise Blocked("RETRY-01", "no attempt came within --backoff-wait, of anything", *evidence)
        expected = f"the event delivered after its transaction was answered {single.name}"
        expect(single.delivered, expected, "it never was", *evidence)
        ids = {each.txn_id for each in single.attempts}
        expect(len(ids) == 1, f"the same ID again after {single.name}", f"{len(ids)} IDs", *evidence)


@requirement("RETRY-05", lane=V4)
def test_the_homeserver_backs_off_exponentially(run: Run, lanes: Lanes) -> None:
    """Attempts become rarer: the gaps grow, and the largest is at least twice the first."""
    outage = lanes[V4].long.get().outage
    spacing = outage.spacing
    _enough(spacing, outage, run)
    problem = spacing.strict_problem() if run.strict else spacing.lenient_problem()
    exact = Spacing(spacing.times)
    doubtful = problem is None and (exact.strict_problem() if run.strict else exact.lenient_problem())
    control(not doubtful, f"{doubtful}: but threads of this machine woke up {spacing.error:.2f} s late; {spacing}")
    expected = "each gap 1.5 to 3 times the one before, up to a cap" if run.strict else "gaps that grow"
    expect(problem is None, expected, f"{problem}; {spacing}", *_exchanges(outage, 6))
    record(str(spacing), *_exchanges(outage, 6))


@requirement("RETRY-06", lane=V4)
def test_attempts_do_not_run_hot(run: Run, lanes: Lanes) -> None:
    """There are not more than ten attempts in the first ten seconds of an outage."""
    outage = lanes[V4].long.get().outage
    hot = outage.spacing.hot(run.budgets.scale)
    expected = f"at most 10 attempts in the first {HOT_SECONDS * run.budgets.scale:g} s"
    expect(hot is None, expected, f"{hot}; {outage.spacing}", *_exchanges(outage, 6))


@requirement("RETRY-07", lane=V4)
def test_the_homeserver_does_not_give_up(run: Run, lanes: Lanes) -> None:
    """Attempts go on until the appservice can be reached again, and then succeed."""
    recovered = lanes[V4].recovered.get()
    outage = recovered.outage
    if len(outage.failed) < 2:
        raise Blocked("RETRY-01", "there was no second attempt during the outage", *_exchanges(outage))
    went_on = bool(outage.after)
    seen = "another attempt, but no success" if went_on else "no further attempt"
    expected = f"the transaction delivered within {recovered.allowed:.0f} s of the end of the outage"
    expect(recovered.delivered, expected, f"{seen}; {outage.spacing}", *_exchanges(outage))


@requirement("RETRY-08", shared=True, lane=V2)
def test_nothing_that_was_queued_in_an_outage_is_lost(lanes: Lanes) -> None:
    """All events of an outage arrive after it, each under one ID."""
    backlog = lanes[V2].backlog.get()
    outage, lost = backlog.outage, backlog.missing
    if lost and not backlog.came_back:
        raise Blocked("RETRY-07", "no attempt came after the outage, of anything", *_exchanges(outage))
    what = f"all {len(outage.sent)} events of the outage delivered"
    expect(not lost, what, f"{len(lost)} missing: {listing(sorted(lost), 3)}", *_exchanges(outage))
    for event in outage.sent:
        carriers = [each for each in outage.attempts if carries(each.first, event)]
        ids = {each.txn_id for each in carriers}
        expect(len(ids) == 1, f"{event} under one ID", f"under {len(ids)}", *(each.first for each in carriers[:3]))


@requirement("RETRY-08", shared=True, lane=V2)
def test_nothing_is_lost_when_a_recovery_breaks_off(lanes: Lanes) -> None:
    """An appservice that accepts one transaction after an outage and fails again gets all events in the end."""
    relapse = lanes[V2].relapse.get()
    if relapse.failed is None:
        record("no transaction was left for the appservice to fail again")
        return
    lost, evidence = relapse.missing, (relapse.failed, *_exchanges(relapse.outage))
    control(not lost or relapse.moved_on, "nothing more came, of anything: it may only wait long", *evidence)
    what = f"all {len(relapse.outage.sent)} events of an outage that began again before they were pushed"
    expect(not lost, what, f"{len(lost)} missing: {listing(sorted(lost), 3)}", *evidence)


@requirement("RETRY-09", lane=V2)
def test_after_a_recovery_all_is_as_before(run: Run, lanes: Lanes) -> None:
    """After a recovery events are pushed at once, and the next outage begins with a short gap again."""
    backlog, again = lanes[V2].backlog.get(), lanes[V2].again.get()
    if backlog.missing:
        raise Blocked("RETRY-08", "the appservice had not caught up", *_exchanges(backlog.outage))
    expected = f"an event sent after the recovery delivered within {run.budgets.deliver:g} s"
    expect(again.prompt, expected, "it was not", *_exchanges(again.first))
    control(again.first.spacing.gaps, "the first outage had one attempt only: there is no gap to compare with")
    last = again.others[-1]
    evidence = _exchanges(last, 2)
    if again.needs_traffic:
        raise Blocked("RETRY-01", "a failed transaction is tried again only when there is new traffic", *evidence)
    gaps = last.spacing.gaps
    expected = f"a first gap of at most {again.usual:.1f} s, as in the outage before ({again.first.spacing})"
    expect(gaps and gaps[0] <= again.usual, expected, f"{gaps[0]:.1f} s" if gaps else "none", *evidence)


@requirement("RETRY-10", lane=V3)
def test_a_hanging_appservice_blocks_nobody(run: Run, lanes: Lanes) -> None:
    """While an appservice hangs, messages and syncs are answered as promptly as before."""
    calls = lanes[V3].calls.get()
    for before, during in zip(calls.before, calls.during, strict=True):
        worked = not isinstance(before.response, NoAnswer) and before.response.ok
        control(worked, f"{before.what} was answered {before.response} before already", before.response.exchange)
        allowed = max(_PROMPT, _TIMES * before.seconds)
        answered = not isinstance(during.response, NoAnswer) and during.response.ok
        evidence = _exchange_of(during)
        expect(answered, f"{during.what} answered while V3 hangs", _told(during), evidence)
        expected = f"{during.what} answered within {allowed:.1f} s while V3 hangs"
        expect(during.seconds <= allowed, expected, f"after {during.seconds:.1f} s", evidence)


def _exchange_of(timed: Timed) -> Exchange:
    return timed.response.exchange


def _told(timed: Timed) -> str:
    return str(timed.response)


@requirement("RETRY-11", lane=V1)
def test_other_appservices_are_served_meanwhile(run: Run, lanes: Lanes) -> None:
    """An event that interests a failing and a healthy appservice reaches the healthy one in time."""
    meanwhile, outage = lanes[V1].meanwhile.get(), lanes[V1].first.get().outage
    expected = f"an event for V1, which fails, and A at A within {run.budgets.deliver:g} s"
    expect(meanwhile.reached_a, expected, "it did not arrive", *_exchanges(outage))


@requirement("RETRY-12")
def test_an_unreachable_appservice_disturbs_nobody(d: Appservice, a: Appservice, human: User) -> None:
    """With a ghost of D in the room, A gets all messages in time, and D's ghosts can act."""
    room, twin = human.create_room(), a.ghost()
    twin.join(room)
    human.send(room)
    a.await_event(human.send(room))
    ghost = d.ghost()
    answer = ghost.call("POST", f"/join/{segment(room)}", json={})
    expect(answer.ok, "the join of a ghost of D accepted", answer, answer.exchange)
    human.send(room)
    for number in range(10):
        a.must_receive(human.send(room), f"message {number + 1} of 10 in a room with a ghost of D")
    a.must_receive(ghost.send(room), "a message of a ghost of D in a room of A")
    another = d.ghost()  # D has been found unreachable by now
    answer = another.call("POST", f"/join/{segment(room)}", json={})
    expect(answer.ok, "the join of another ghost of D accepted", answer, answer.exchange)
    a.must_receive(another.send(room), "a message of another ghost of D in a room of A")


@requirement("RETRY-13", lane=V1)
def test_queries_do_not_wait_for_transactions(run: Run, lanes: Lanes, q: Appservice, human: User) -> None:
    """While an appservice fails transactions it is still asked about unknown users."""
    meanwhile, outage = lanes[V1].meanwhile.get(), lanes[V1].first.get().outage
    if meanwhile.query is None:
        ghost, marker = q.unregistered(), run.journal.marker()
        human.provoke("POST", f"/rooms/{segment(human.create_room())}/invite", json={"user_id": ghost.user_id})
        if q.await_request(Kind.USER, marker, subject=ghost.user_id) is None:
            raise Blocked("USERQ-01", "the homeserver asks no healthy appservice about unknown users either")
    expected = f"a query about {meanwhile.ghost} within {run.budgets.deliver:g} s while V1 fails"
    expect(meanwhile.query, expected, "none", *_exchanges(outage, 2))


@requirement("RETRY-14", lane=V4)
def test_a_ping_in_an_outage(lanes: Lanes) -> None:
    """Whether a successful ping ends the backoff is up to the homeserver; recorded."""
    pinged = lanes[V4].pinged.get()
    told = "at once" if pinged.at_once else "in its own time"
    record(f"a ping before the next attempt is answered {pinged.ping}, and that attempt comes {told}")


@requirement("RETRY-15", lane=Restarts)
def test_what_is_queued_survives_a_restart(lanes: Lanes) -> None:
    """Events that were queued in an outage before a restart arrive after it; the one that was tried keeps its ID."""
    kept = lanes[Restarts].kept.get()
    missing = sorted(kept.missing)
    expected = f"all {len(kept.outage.sent)} events that were queued when the homeserver was stopped"
    expect(not missing, expected, f"{len(missing)} never: {listing(missing, 3)}", kept.before.first)
    expected = f"the pending transaction with its ID {kept.before.txn_id} after the restart"
    if kept.after is not None and kept.after.txn_id != kept.before.txn_id:
        raise Broken(expected, f"its event in {kept.after.txn_id}", kept.before.first, kept.after.first)


@requirement("RETRY-16", lane=V5)
def test_nothing_is_left_behind_when_an_outage_ends(lanes: Lanes) -> None:
    """What people send while an appservice recovers arrives, in order and without needing another event."""
    races = lanes[V5].races.get()
    for number, race in enumerate(races, 1):
        evidence = [each.first for each in race.outage.attempts[-3:]]
        total = sum(map(len, race.sent.values()))
        expected = f"all {total} events of outage {number} delivered"
        expect(not race.missing, expected, f"{len(race.missing)} never: {listing(sorted(race.missing), 3)}", *evidence)
        arrived = order.arrivals(event for _, event in race.outage.appservice.received(race.outage.since))
        for sent in race.sent.values():
            inversion = order.first_inversion(sent, arrived)
            told = order.in_words(sent, arrived, inversion) if inversion else ""
            expect(inversion is None, f"the events of a room in order, in outage {number}", told, *evidence)
    record(f"{len(races)} outages, {sum(len(each) for race in races for each in race.sent.values())} events")


@requirement("RETRY-17", lane=V6)
def test_half_an_answer_does_not_block_the_queue(run: Run, lanes: Lanes) -> None:
    """After half an answer and then silence the homeserver goes on: it tries again, or pushes the next event."""
    half = lanes[V6].half.get()
    patient = run.budgets.block >= PATIENT * run.budgets.scale
    control(half.moved_on or patient, f"nothing within --block-wait {run.budgets.block:g} s")
    expected = f"another attempt or the next event within {run.budgets.block:g} s of half an answer"
    expect(half.moved_on, expected, "neither", *_exchanges(half.outage))
    attempts = half.outage.attempts
    again = len(attempts) > 1 and attempts[1].txn_id == attempts[0].txn_id
    record(f"the homeserver {'tries again' if again else 'takes the head for an acknowledgement'}")


@requirement("RETRY-18", before=V1)
def test_refused_queries_are_no_outage(run: Run, v1: Appservice, human: User) -> None:
    """While V1 answers queries about users, and a ping, with 404 or 500, it gets its events as before.

    Several in a row: to be taken for an outage, with a backoff that grows, would then delay the event by minutes.
    """
    room = human.create_room()
    v1.ghost().join(room)
    human.send(room)  # the first after a join is INTEREST-30
    v1.await_event(human.send(room))
    ping = f"/_matrix/client/v1/appservice/{segment(v1.registration.id)}/ping"
    for status in (404, 500):
        marker = run.journal.marker()
        refusal = always(answer(status, {"errcode": "HQ.CONFORMANCE.NO", "error": "no"}))
        with v1.scripted(Kind.USER, refusal), v1.scripted(Kind.PING, refusal):
            invites = f"/rooms/{segment(human.create_room())}/invite"
            for _ in range(_REFUSALS):
                ghost = v1.unregistered()
                human.provoke("POST", invites, json={"user_id": ghost.user_id})
                v1.sender.provoke("POST", ping, json={})
            asked = v1.await_request(Kind.USER, marker, subject=ghost.user_id)
            asked = asked or v1.await_request(Kind.PING, marker, timeout=0.0)
        control(asked, "V1 was neither asked about unknown users nor pinged")
        message, what = human.send(room), f"a message sent after V1 answered a query or a ping {status}"
        if status == 404:
            v1.must_receive(message, what)
        else:  # to rest after so many errors is no more than unwise
            came = v1.still_missing([message], marker) == set()
            prefer(came, f"{what} in a transaction within {run.budgets.deliver:g} s", "no transaction with it")
