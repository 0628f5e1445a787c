"""Attempts to deliver a transaction, as a homeserver makes them (AS: Pushing events, Legacy routes).

A request on the present route and the one on the legacy route that follows it are one attempt: a fallback is no retry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from conformance.appservice.routes import Route
from conformance.judges.transactions import acknowledged, transaction_id
from conformance.wire.exchange import Exchange


@dataclass(frozen=True)
class Attempt:
    """One logical attempt: a request, and the fallback to the legacy route if there was one."""

    exchanges: tuple[Exchange, ...]

    @property
    def first(self) -> Exchange:
        """The request that began it."""
        return self.exchanges[0]

    @property
    def txn_id(self) -> str:
        """The transaction's ID."""
        return transaction_id(self.first)

    @property
    def started(self) -> float:
        """When its first byte arrived, in seconds of the journal's clock."""
        return self.first.started

    @property
    def ended(self) -> float | None:
        """When it was answered or cut, in seconds; None while it is open."""
        return self.exchanges[-1].answer_until

    @property
    def acknowledged(self) -> bool:
        """Whether the appservice accepted it."""
        return acknowledged(self.exchanges[-1])


def attempts(transactions: Iterable[Exchange], route: Callable[[Exchange], Route], within: float) -> list[Attempt]:
    """The logical attempts in some transactions of one appservice, in order.

    :param route: what a request of that appservice asks.
    :param within: seconds after its predecessor's answer in which a legacy request still belongs to it (T_quiet).
    """
    grouped: list[list[Exchange]] = []
    for exchange in transactions:
        if grouped and _falls_back(grouped[-1], exchange, route, within):
            grouped[-1].append(exchange)
        else:
            grouped.append([exchange])
    return [Attempt(tuple(group)) for group in grouped]


def _falls_back(
    group: Sequence[Exchange], exchange: Exchange, route: Callable[[Exchange], Route], within: float
) -> bool:
    before = group[-1]
    if len(group) > 1 or route(before).legacy or not route(exchange).legacy:
        return False
    answered = before.answer_until if before.answer_until is not None else before.started
    return transaction_id(before) == transaction_id(exchange) and exchange.started - answered <= within


def overlap(transactions: Iterable[Exchange]) -> tuple[Exchange, Exchange] | None:
    """Two requests with different IDs that were open together: the second arrived before the first was answered."""
    open_ones: list[Exchange] = []
    for exchange in transactions:
        open_ones = [each for each in open_ones if each.answer_from is None or each.answer_from > exchange.started]
        for each in open_ones:
            if transaction_id(each) != transaction_id(exchange):
                return each, exchange
        open_ones.append(exchange)
    return None
