"""RESTART: the queue across a stop of the homeserver (AS: Pushing events)."""

from __future__ import annotations

from conformance.judges import sameness
from conformance.judges.transactions import event_ids, reused_id, same_ids, transaction_id
from conformance.lanes.lane import Lanes
from conformance.lanes.restarts import Restarts, UnderWay
from conformance.requirement import requirement
from conformance.verdict import Broken, Inconclusive, control, expect, listing, prefer, record


@requirement("RESTART-01", lane=Restarts)
def test_no_acknowledged_id_comes_back_with_other_events(lanes: Lanes) -> None:
    """A transaction ID that was acknowledged in one life of the homeserver is not given to other events in the next."""
    ids = lanes[Restarts].ids.get()
    for member in ids.appservices:
        reused = reused_id(member.transactions(), same_ids)
        if reused is not None:
            before, after = reused
            told = f"{transaction_id(after)} again, with {listing(event_ids(after), 3)} instead of "
            told += listing(event_ids(before), 3)
            expect(False, f"a transaction ID of its own for each set of events pushed to {member}", told, *reused)
    later = [each for member in ids.appservices for each in member.transactions(ids.restarted_at)]
    control(later, "nothing was pushed after the restarts")
    record(f"{len(later)} transactions after {listing(ids.restarts)}")


@requirement("RESTART-02", lane=Restarts)
def test_what_waits_behind_a_slow_transaction_survives_an_orderly_stop(lanes: Lanes) -> None:
    """Six events, the first under way to a slow appservice when the homeserver is stopped: all arrive in the end."""
    _all_arrive(lanes[Restarts].slow.get(), "an orderly stop")


@requirement("RESTART-03", lane=Restarts)
def test_what_waits_behind_a_slow_transaction_survives_a_crash(lanes: Lanes) -> None:
    """Six events, the first under way to a slow appservice when the homeserver crashes: all arrive after its start."""
    _all_arrive(lanes[Restarts].crashed.get(), "a crash")


def _all_arrive(under_way: UnderWay, what: str) -> None:
    total, missing = len(under_way.sent), sorted(under_way.missing)
    expected = f"all {total} events at {under_way.appservice} after {what} with one of them under way"
    expect(not missing, expected, f"{len(missing)} never: {listing(missing, 3)}", under_way.first)


@requirement("RESTART-04", lane=Restarts)
def test_what_was_acknowledged_just_before_a_crash_arrives(lanes: Lanes) -> None:
    """A burst to a healthy appservice, and a crash at the last acknowledgement: every event arrives at least once."""
    bursts = lanes[Restarts].bursts.get()
    for burst in bursts:
        missing = sorted(burst.missing)
        expected = f"all {len(burst.sent)} events of a burst that were acknowledged to their sender before a crash"
        last = burst.appservice.transactions()[-1:]
        expect(not missing, expected, f"{len(missing)} never: {listing(missing, 3)}", *last)
    record(f"{len(bursts)} crashes")


@requirement("RESTART-05", lane=Restarts)
def test_what_was_pending_is_delivered_without_new_traffic(lanes: Lanes) -> None:
    """A failed transaction from before a restart is tried again after it, though nothing new is to be pushed."""
    kept = lanes[Restarts].kept.get()
    expected = f"the transaction that was pending before the restart, within {kept.silence:.0f} s of silence"
    if not kept.in_silence and kept.after and not kept.woken:
        raise Inconclusive("it came later, but not because of something new", kept.before.first, kept.after.first)
    seen = "it came only with something new to push" if kept.after else "it never came"
    expect(kept.in_silence, expected, seen, kept.before.first)


@requirement("RESTART-06", lane=Restarts)
def test_what_was_under_way_at_a_crash_is_not_overtaken(lanes: Lanes) -> None:
    """An event that was under way at a crash arrives before events of its room that are sent after the start."""
    overtaken = lanes[Restarts].overtaken.get()
    old, new = overtaken.arrivals[overtaken.old], overtaken.arrivals[overtaken.new[0]]
    if new is None:
        raise Inconclusive("no event that was sent after the start arrived")
    expected = f"{overtaken.old}, under way at the crash, before {overtaken.new[0]} of the same room"
    if old is None:
        raise Broken(expected, f"{overtaken.new[0]} only", new)
    events = event_ids(new)
    in_order = events.index(overtaken.old) < events.index(overtaken.new[0]) if old is new else old.number < new.number
    expect(in_order, expected, f"{overtaken.new[0]} first", new, old)


@requirement("RESTART-07", lane=Restarts)
def test_a_transaction_is_the_same_after_a_restart(lanes: Lanes) -> None:
    """A failed transaction that is tried again after a restart has the same events, changed state among them."""
    retold = lanes[Restarts].retold.get()
    ids = {each.txn_id for each in retold.before}
    after = [each for each in retold.after if each.txn_id in ids]
    control(after, "its transaction was not tried again under its ID after the restart (RETRY-15)")
    expected = f"the events of transaction {after[0].txn_id} as they were before the restart"
    for attempt in after:
        before = next(each for each in retold.before if each.txn_id == attempt.txn_id)
        told = sameness.difference(*(sameness.without_unsigned(sameness.events_of(each)) for each in (before, attempt)))
        expect(told is None, expected, told, before.first, attempt.first)
        told = sameness.difference(sameness.events_of(before), sameness.events_of(attempt))
        if told is not None:
            prefer(False, expected, told, before.first, attempt.first)
            break
    record(f"{len(retold.before)} attempts before, {len(after)} after the restart")


@requirement("RESTART-08", lane=Restarts)
def test_what_appservices_had_is_still_there(lanes: Lanes) -> None:
    """Senders, ghosts, aliases, exclusive names and interest are after all restarts what they were before them."""
    there = lanes[Restarts].property.get()
    compared = 0
    for what, (before, after) in there.answers.items():
        if what.startswith("an alias in") and before.errcode != "M_EXCLUSIVE":
            continue  # it was not enforced before either: NSALIAS-01
        if before.status >= 500:
            continue
        compared += 1
        same = (before.status, before.errcode) == (after.status, after.errcode)
        kept = same and (not before.ok or _shown(before.json) == _shown(after.json))
        expected = f"{before} for {what}, as before the restarts"
        expect(kept, expected, f"{after} {_shown(after.json) if same else ''}".strip(), after.exchange, before.exchange)
    control(compared, "nothing could be asked for before the restarts")
    for why, pushed in there.heard.items():
        control(pushed or there.hears, "after the restarts nothing is pushed any more, of new rooms neither")
        expect(pushed, f"a message pushed, in a room from before the restarts that {why}", "it was not")
    record(f"{compared} answers are the same")


def _shown(body: dict[str, object]) -> dict[str, object]:
    """What a restart must not change in the answers that are compared."""
    return {key: body.get(key) for key in ("user_id", "displayname", "room_id") if key in body}
