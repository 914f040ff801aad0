"""The cpio archive is one that a reader of the format understands."""

from __future__ import annotations

import stat

from hypothesis import given, settings
from hypothesis import strategies as st

from hba.lab.initramfs import newc


def read(archive: bytes) -> list[tuple[str, int, bytes]]:
    """A reader of its own, straight from the format's description."""
    found = []
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archive[at + 110 : at + 110 + name_size]
        assert name.endswith(b"\0")
        body = at + (110 + name_size + 3) // 4 * 4
        if name == b"TRAILER!!!\0":
            assert body == len(archive)
            return found
        found.append((name[:-1].decode(), mode, archive[body : body + size]))
        at = body + (size + 3) // 4 * 4


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40).filter(
                lambda name: name != "TRAILER!!!"
            ),
            st.sampled_from([stat.S_IFREG | 0o755, stat.S_IFREG | 0o600, stat.S_IFLNK | 0o777]),
            st.binary(max_size=200),
        ),
        max_size=6,
    )
)
def test_what_goes_in_comes_out(entries: list[tuple[str, int, bytes]]) -> None:
    assert read(b"".join(newc(entries))) == entries
