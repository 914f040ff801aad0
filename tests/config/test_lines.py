"""hba.config.lines: where a key stands."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from hba.config.lines import line_of, locate

TEXT = '''# comment
[[adapter]]
type = "pvscsi"   # one
[adapter.verifier]
rules = { SP-01 = "off" }
[adapter.verifier.rules]
"Q-02" = "note"
[[adapter.lun]]
target = 1
storage.kind = "memory"
note = """
target = 9
"""
[[adapter.lun]]
target = 2
[[adapter]]
[[adapter.lun]]
target = 3
'''


def test_tables_arrays_and_dotted_keys() -> None:
    lines = locate(TEXT)
    assert lines["adapter", 0] == 2
    assert lines["adapter", 0, "type"] == 3
    assert lines["adapter", 0, "verifier"] == 4
    assert lines["adapter", 0, "verifier", "rules", "Q-02"] == 7
    assert lines["adapter", 0, "lun", 0, "target"] == 9
    assert lines["adapter", 0, "lun", 0, "storage", "kind"] == 10
    assert lines["adapter", 0, "lun", 1, "target"] == 15
    assert lines["adapter", 1, "lun", 0, "target"] == 18


def test_a_key_inside_a_multi_line_string_is_none() -> None:
    assert 12 not in locate(TEXT).values()


def test_a_path_without_a_line_gets_the_one_around_it() -> None:
    lines = locate(TEXT)
    assert line_of(lines, ("adapter", 0, "lun", 1, "storage", "path")) == 14
    assert line_of(lines, ("nothing",)) is None


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="[]{}=\"'.#ab \n\t", max_size=120))
def test_any_text_is_survived(text: str) -> None:
    for line in locate(text).values():
        assert 1 <= line <= len(text.splitlines())


def test_tables_in_braces_over_several_lines() -> None:
    lines = locate(
        """
[[adapter]]
type = "pvscsi"
[[adapter.lun]]
storage = {
    kind = "overlay",  # a } that is none
    base = {
        kind = "file", path = "}{",
    },
    directory = "x",
    sizes = [
        { read_only = 1 },
    ],
    limit = 3,
}
read_only = true
"""
    )
    unit = ("adapter", 0, "lun", 0)
    assert lines[(*unit, "storage")] == 5
    assert lines[(*unit, "storage", "kind")] == 6
    assert lines[(*unit, "storage", "base")] == 7
    assert lines[(*unit, "storage", "base", "kind")] == 8
    assert lines[(*unit, "storage", "directory")] == 10
    assert lines[(*unit, "storage", "sizes")] == 11
    assert lines[(*unit, "storage", "limit")] == 14
    assert lines[(*unit, "read_only")] == 16
