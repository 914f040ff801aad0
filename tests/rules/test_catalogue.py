"""The catalogue is complete, its rules are tested by their IDs, cited by the code, and documented."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hba.adapters.registry import ADAPTERS
from hba.errors import HbaError
from hba.rules import document
from hba.rules.explain import explain, find_rule
from hba.rules.rule import ENFORCED, NOT_APPLICABLE, NOTE, VERIFIED, VIOLATION, WARNING
from hba.rules.scsiport import SCSIPORT_RULES

RULES = ADAPTERS.rules
ROOT = Path(__file__).resolve().parents[2]
FAMILIES = {
    "SP": 15,
    "Q": 17,
    "OW": 10,
    "IN": 8,
    "ER": 17,
    "CF": 13,
    "ST": 14,
    "LK": 6,
    "MB": 18,
    "QD": 12,
    "RS": 10,
    "PF": 6,
    "XS": 2,
    "LB": 4,
}


@pytest.mark.parametrize(("prefix", "count"), FAMILIES.items())
def test_no_rule_is_missing(prefix: str, count: int) -> None:
    assert [f"{prefix}-{number:02d}" for number in range(1, count + 1)] == [
        rule_id for rule_id in RULES if rule_id.split("-")[0] == prefix
    ]


def test_ids_are_unique() -> None:
    ids = [rule.id for rule in SCSIPORT_RULES]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("rule_id", RULES)
def test_every_rule_is_whole(rule_id: str) -> None:
    rule = RULES[rule_id]
    assert rule.id == rule_id
    assert rule.title and rule.text and rule.source
    assert rule.model in ("scsiport", "storport", "both", "guest")
    assert rule.severity in (NOTE, WARNING, VIOLATION)
    if NOT_APPLICABLE in rule.held:
        assert rule.held == (NOT_APPLICABLE,) and rule.why_not
    else:
        assert rule.held and set(rule.held) <= {ENFORCED, VERIFIED} and rule.check


def _text_of(folder: str, skip: str = "") -> str:
    return "\n".join(
        path.read_text()
        for path in sorted((ROOT / folder).rglob("*.py"))
        if not (skip and skip in (*path.parts, path.stem)) and "__pycache__" not in path.parts
    )


@pytest.fixture(scope="module")
def tested() -> set[str]:
    """IDs that tests are named after."""
    return {f"{family}-{number}" for family, number in re.findall(r"def test_([A-Z]+)_(\d\d)_", _text_of("tests"))}


@pytest.fixture(scope="module")
def cited() -> set[str]:
    """IDs that the code names."""
    return set(re.findall(r"\b[A-Z]+-\d\d\b", _text_of("hba", skip="rules")))


APPLICABLE = [rule_id for rule_id, rule in RULES.items() if NOT_APPLICABLE not in rule.held]


def test_a_test_is_named_after_each(tested: set[str]) -> None:
    assert sorted(set(APPLICABLE) - tested) == []


def test_the_code_cites_each(cited: set[str]) -> None:
    assert sorted(set(APPLICABLE) - cited) == []


def test_the_document_is_current() -> None:
    written = (ROOT / "docs" / "rules.md").read_text()
    assert written == document.render(RULES), "run: python -m hba.cli.document docs"


def test_explain_tells_everything() -> None:
    text = explain(find_rule(RULES, "ow-02"))
    assert text.startswith("OW-02  an SRB is completed once")
    assert "SCSI Port and Storport" in text
    assert "0xF1 parameter 0x1003" in text
    assert max(map(len, text.splitlines())) <= 100


def test_every_rule_can_be_explained() -> None:
    assert all(explain(rule).startswith(rule_id) for rule_id, rule in RULES.items())


def test_an_unknown_rule_names_similar_ones() -> None:
    with pytest.raises(HbaError, match=r"did you mean .*SP-0"):
        find_rule(RULES, "SP-0")
    with pytest.raises(HbaError, match=r"there are .*SP-"):
        find_rule(RULES, "whatever else")
