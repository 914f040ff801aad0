"""The disk against a plain bytearray: random reads, writes, unmaps and the like must agree with it."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hba.scsi import sense
from hba.scsi.disk.disk import Disk
from tests.scsi.util import be, disk, read10, read16, run, write10, write16

BLOCKS = 64
LBAS = st.integers(0, BLOCKS + 2)
COUNTS = st.integers(0, 12)
FILL = st.binary(min_size=4, max_size=4)


class DiskModel(RuleBasedStateMachine):
    @initialize(block=st.sampled_from((512, 4096)), cache=st.booleans())
    def start(self, block: int, cache: bool) -> None:
        self.block = block
        self.unit: Disk = disk(BLOCKS * block, block_size=block, write_cache=cache)
        self.model = bytearray(BLOCKS * block)

    def fits(self, lba: int, count: int) -> bool:
        return lba + count <= BLOCKS

    def expect(self, condition: int, lba: int, count: int) -> bool:
        if self.fits(lba, count):
            assert condition == 0
            return True
        assert condition == sense.LBA_OUT_OF_RANGE
        return False

    def put(self, lba: int, data: bytes) -> None:
        self.model[lba * self.block : lba * self.block + len(data)] = data

    def get(self, lba: int, count: int) -> bytes:
        return bytes(self.model[lba * self.block : (lba + count) * self.block])

    @rule(lba=LBAS, count=COUNTS, fill=FILL, long=st.booleans())
    def write(self, lba: int, count: int, fill: bytes, long: bool) -> None:
        data = fill * (count * self.block // 4)
        result = run(self.unit, (write16 if long else write10)(lba, count), out=data)
        if self.expect(result.condition, lba, count):
            assert result.transferred == len(data)
            self.put(lba, data)

    @rule(lba=LBAS, count=COUNTS, long=st.booleans())
    def read(self, lba: int, count: int, long: bool) -> None:
        result = run(self.unit, (read16 if long else read10)(lba, count), count * self.block)
        if self.expect(result.condition, lba, count):
            assert result.data == self.get(lba, count)

    @rule(lba=LBAS, count=COUNTS)
    def unmap(self, lba: int, count: int) -> None:
        data = bytes((0, 22, 0, 16, 0, 0, 0, 0)) + lba.to_bytes(8, "big") + count.to_bytes(4, "big") + bytes(4)
        result = run(self.unit, "42000000000000001800", out=data)
        if self.expect(result.condition, lba, count):
            self.put(lba, bytes(count * self.block))

    @rule(lba=LBAS, count=st.integers(1, 12), fill=st.one_of(st.just(bytes(4)), FILL), unmap=st.booleans())
    def write_same(self, lba: int, count: int, fill: bytes, unmap: bool) -> None:
        block = fill * (self.block // 4)
        cdb = f"93{8 if unmap else 0:02x}{be(lba, 8)}{be(count, 4)}0000"
        if self.expect(run(self.unit, cdb, out=block).condition, lba, count):
            self.put(lba, block * count)

    @rule(lba=st.integers(0, BLOCKS - 4), count=st.integers(1, 4), fill=FILL, right=st.booleans())
    def compare_and_write(self, lba: int, count: int, fill: bytes, right: bool) -> None:
        expected = bytearray(self.get(lba, count))
        if not right:
            expected[-1] ^= 1
        new = fill * (count * self.block // 4)
        result = run(self.unit, f"8900{be(lba, 8)}000000{count:02x}0000", out=bytes(expected) + new)
        assert result.condition == (0 if right else sense.MISCOMPARE_DURING_VERIFY)
        if right:
            self.put(lba, new)

    @rule(lba=st.integers(0, BLOCKS - 4), count=st.integers(1, 4), fill=FILL)
    def orwrite(self, lba: int, count: int, fill: bytes) -> None:
        data = fill * (count * self.block // 4)
        assert run(self.unit, f"8b00{be(lba, 8)}{be(count, 4)}0000", out=data).status == 0
        self.put(lba, bytes(old | new for old, new in zip(self.get(lba, count), data, strict=True)))

    @rule(lba=st.integers(0, BLOCKS - 4), count=st.integers(1, 4))
    def verify(self, lba: int, count: int) -> None:
        assert run(self.unit, f"8f02{be(lba, 8)}{be(count, 4)}0000", out=self.get(lba, count)).status == 0

    @rule(more=st.booleans())
    def resize(self, more: bool) -> None:
        """Growing and shrinking back keeps what is below."""
        self.unit.resize((2 * BLOCKS if more else BLOCKS) * self.block)
        self.unit.resize(BLOCKS * self.block)
        while run(self.unit, "000000000000").status:
            pass

    @invariant()
    def nothing_is_left_behind(self) -> None:
        if hasattr(self, "unit"):
            assert not self.unit._in_flight and not self.unit._waiting and not self.unit._special


TestDiskModel = DiskModel.TestCase
TestDiskModel.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
