"""The files in fixtures/ are what the suite makes of its roster."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from conformance.appservice.registration import write
from conformance.appservice.roster import ROLES, ROSTER, enlist
from conformance.schemas import data_dir


def test_the_registration_templates_are_those_of_the_roster(tmp_path: Path) -> None:
    templates = []
    for each in enlist("hq.test", "http://127.0.0.1", count(1)):
        url = None if each.url is None else f"http://127.0.0.1:<port>{ROLES[each.code].base_path}"
        templates.append(replace(each, as_token="<as_token>", hs_token="<hs_token>", url=url))
    for path in write(tmp_path, templates):
        shipped = data_dir("fixtures") / "registrations" / path.name
        assert json.loads(shipped.read_text()) == json.loads(path.read_text()), path.name


def test_no_template_is_left_over() -> None:
    shipped = {path.name for path in (data_dir("fixtures") / "registrations").glob("*.yaml")}
    assert shipped == {f"as-conformance-{role.code.lower()}.yaml" for role in ROSTER}


@pytest.mark.parametrize("name", ["schemas", "fixtures"])
def test_shipped_data_is_found_in_a_checkout(name: str) -> None:
    assert data_dir(name).is_dir()
