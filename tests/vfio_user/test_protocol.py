"""Messages: what they look like on the wire, and that no bytes break the decoders."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hba.vfio_user import protocol as p
from hba.vfio_user.protocol import Capabilities, ProtocolError

# The version data QEMU 11.1 sends.
QEMU = (
    b'{"capabilities": {"pgsizes": 4096, "max_msg_fds": 16, "migration": {"max_bitmap_size": 268435456, '
    b'"pgsize": 4096}, "max_dma_maps": 65535, "max_data_xfer_size": 1048576, "write_multiple": true}}\0'
)


def test_layouts_have_the_sizes_of_the_specification() -> None:
    sizes = {
        p.HEADER: 16,
        p.DMA_MAP_BODY.struct: 32,
        p.DMA_UNMAP_BODY.struct: 24,
        p.DEVICE_INFO_BODY.struct: 16,
        p.REGION_INFO_BODY.struct: 32,
        p.REGION_IO_FDS_BODY.struct: 16,
        p.IRQ_INFO_BODY.struct: 16,
        p.SET_IRQS_BODY.struct: 20,
        p.REGION_ACCESS_BODY.struct: 16,
        p.DMA_ACCESS_BODY.struct: 16,
        p.MULTI_WRITE: 24,
        p.SPARSE_CAP: 16,
        p.SPARSE_AREA: 16,
    }
    assert {layout: layout.size for layout in sizes} == sizes


def test_dma_map_on_the_wire() -> None:
    body = bytes.fromhex("20000000 03000000 0010000000000000 0000100000000000 0000f00300000000")
    decoded = p.DMA_MAP_BODY.decode(body)
    assert decoded == p.DmaMap(32, 3, 0x1000, 0x100000, 0x3F00000)
    assert p.DMA_MAP_BODY.encode(decoded) == body


def test_unknown_flag_bits_survive_decoding() -> None:
    body = p.DMA_MAP_BODY.encode(p.DmaMap(32, 0xFFFFFFF3, 0, 0, 1))
    assert p.DMA_MAP_BODY.decode(body).flags == 0xFFFFFFF3


def test_version_of_qemu_is_understood_and_the_answer_fits_its_buffer() -> None:
    request = p.VERSION_BODY.encode(p.Version(0, 0)) + QEMU
    major, minor, theirs = p.decode_version(request)
    assert (major, minor) == (0, 0)
    assert theirs == Capabilities(16, 1 << 20, 65535, 4096, True)
    reply = p.encode_version(0, 0, p.agree(theirs))
    assert p.HEADER_SIZE + len(reply) <= 214  # QEMU reads the reply into the buffer of its own request
    assert json.loads(reply[4:-1]) == {
        "capabilities": {
            "max_msg_fds": 16,
            "max_data_xfer_size": 1048576,
            "max_dma_maps": 4096,
            "pgsizes": 4096,
            "write_multiple": True,
        }
    }
    assert reply[-1] == 0


def test_the_answer_names_only_what_was_named() -> None:
    assert p.encode_version(0, 0, p.agree(Capabilities(pgsizes=4096))) == b'\0\0\0\0{"capabilities":{"pgsizes":4096}}\0'


def test_version_data_is_optional() -> None:
    assert p.decode_version(bytes(4)) == (0, 0, Capabilities())
    assert p.decode_version(bytes(5)) == (0, 0, Capabilities())


@pytest.mark.parametrize(
    "data",
    [
        b"{}",  # no NUL
        b"{\0",
        b"[]\0",
        b"null\0",
        b'{"capabilities": 5}\0',
        b'{"capabilities": {"max_msg_fds": "many"}}\0',
        b'{"capabilities": {"max_msg_fds": -1}}\0',
        b'{"capabilities": {"max_data_xfer_size": 0}}\0',
        b'{"capabilities": {"max_data_xfer_size": 1e400}}\0',
        b'{"capabilities": {"pgsizes": 99999999999999999999999}}\0',
        b'{"capabilities": {"write_multiple": 1}}\0',
        b'{"x": "\xff"}\0',
        b"{}\0{}\0",
        b"[" * 3000 + b"\0",
        b" " * 5000 + b"{}\0",
    ],
)
def test_bad_version_data_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        p.decode_version(bytes(4) + data)


def test_write_multi_there_and_back() -> None:
    body = p.encode_multi([(0x10, 0, b"abcd"), (0x1000, 1, b"12345678"), (0, 7, b"")])
    assert p.decode_multi(body) == [
        (0x10, 0, 4, b"abcd\0\0\0\0"),
        (0x1000, 1, 8, b"12345678"),
        (0, 7, 0, bytes(8)),
    ]
    with pytest.raises(ValueError, match="at most 8"):
        p.encode_multi([(0, 0, bytes(9))])


@pytest.mark.parametrize("change", [(0, 4), (0, 2), (20, 9)])
def test_write_multi_that_does_not_add_up(change: tuple[int, int]) -> None:
    body = bytearray(p.encode_multi([(0x10, 0, b"abcd"), (0x10, 0, b"abcd"), (0, 0, b"")]))
    body[change[0]] = change[1]
    with pytest.raises(ProtocolError):
        p.decode_multi(body)


def test_sparse_areas_there_and_back() -> None:
    areas = ((0x1000, 0x2000), (0x8000, 0x1000))
    assert p.decode_sparse(p.encode_sparse(areas)) == areas
    with pytest.raises(ProtocolError):
        p.decode_sparse(p.encode_sparse(areas)[:-1])


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_decoders_are_total(data: bytes) -> None:
    bodies = [value for name, value in vars(p).items() if name.endswith("_BODY")]
    assert len(bodies) == 18
    for decode in [body.decode for body in bodies] + [p.decode_version, p.decode_multi, p.decode_sparse]:
        try:
            decode(data)
        except ProtocolError:
            pass


@settings(max_examples=100)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["capabilities", "max_msg_fds", "pgsizes", "write_multiple", "x"]), inner)
        ),
    )
)
def test_any_json_is_understood_or_refused(value: object) -> None:
    try:
        _, _, capabilities = p.decode_version(bytes(4) + json.dumps(value).encode() + b"\0")
    except ProtocolError:
        return
    assert isinstance(capabilities, Capabilities)
    assert p.encode_version(0, 0, p.agree(capabilities))
