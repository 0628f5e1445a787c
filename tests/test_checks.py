"""Every check decides a requirement of the catalogue, and no requirement is decided twice by accident."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import conformance.checks
from conformance.catalogue import load

DIRECTORY = Path(next(iter(conformance.checks.__path__)))
FILES = sorted(DIRECTORY.glob("test_*.py"))


def checks(path: Path) -> Iterator[tuple[str, Callable[..., Any], pytest.Mark]]:
    """The checks of a file, each with its requirement marker."""
    module = importlib.import_module(f"conformance.checks.{path.stem}")
    for name, check in vars(module).items():
        if name.startswith("test_"):
            (mark,) = (mark for mark in check.pytestmark if mark.name == "requirement")
            yield name, check, mark


def checked_requirements() -> set[str]:
    """The requirements that have a check."""
    return {requirement for path in FILES for _, _, mark in checks(path) for requirement in mark.args}


def test_every_check_names_requirements_that_exist_and_stand_in_its_files_area() -> None:
    catalogue = load()
    for path in FILES:
        for name, _, mark in checks(path):
            assert mark.args, name
            for requirement in mark.args:
                assert requirement in catalogue, f"{name} decides {requirement}, which is no requirement"
            areas = {catalogue[each].area.lower() for each in mark.args}
            assert path.stem.removeprefix("test_") in areas, name


def test_no_two_checks_decide_a_requirement_unless_both_say_so() -> None:
    seen: dict[str, tuple[str, bool]] = {}
    for path in FILES:
        for name, _, mark in checks(path):
            for requirement in mark.args:
                if requirement in seen:
                    other, shared = seen[requirement]
                    assert shared, f"{other} and {name} both decide {requirement}"
                    assert mark.kwargs["shared"], f"{other} and {name} both decide {requirement}"
                seen[requirement] = (name, mark.kwargs["shared"])


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.stem))
def test_checks_come_in_catalogue_order_and_say_what_they_check(path: Path) -> None:
    order = {requirement: place for place, requirement in enumerate(load().ids())}
    places = []
    for name, check, mark in checks(path):
        if not mark.kwargs["last"]:
            places.append(min(order[each] for each in mark.args))
        assert inspect.getdoc(check), name
    assert places == sorted(places)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.stem))
def test_checks_neither_sleep_nor_assert(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        assert not isinstance(node, ast.Assert), f"line {node.lineno}: only expect() and its like can accuse"
        assert not (isinstance(node, ast.Attribute) and node.attr == "sleep"), (
            f"line {node.lineno}: wait on the journal"
        )
