"""What a driver has set up with a minimal adapter: one ring, each entry of which is answered where it lies."""

from __future__ import annotations

from hba.adapters.ring.rings import MASK32, NOT_YET, Mailbox, Rings
from hba.errors import DmaFault
from hba.pci.memory import GuestMemory
from hba.pci.registers import RegisterBlock
from tests.adapters.minimal.structures import COME, ENDED, ENTRY_SIZE, GONE, RESULT, STATE_AT

WIDTH = 5  # numbers of a completion: index of the entry, bytes moved, SCSI status, SRB status, bytes of sense data


class UnitRegister(Mailbox):
    """Room for one."""

    def __init__(self, registers: RegisterBlock) -> None:
        super().__init__(1)
        self._unit = registers.cell("UNIT")
        self._taken = 0

    def put(self, change: str, target: int, lun: int) -> bool:
        if self._unit.value:
            return False
        self._unit.value = (COME if change == "added" else GONE) << 16 | target << 8 | lun
        return True

    def taken(self) -> int:
        return self._taken

    def unread(self) -> int:
        return int(self._unit.value != 0)

    def position(self) -> str:
        return f"UNIT is {self._unit.value:#x}"

    def heard(self) -> None:
        self._unit.value = 0
        self._taken += 1


class MinimalRings(Rings):
    """`announced`: entries the driver has made ready so far; `seen`: that it knows to be done. `sense`: of entries that
    are to be answered with it."""

    def __init__(self, memory: GuestMemory, registers: RegisterBlock, entries: int) -> None:
        super().__init__(NOT_YET, entries, entries)
        self.address = registers["RING"]
        self.announced = self.seen = 0
        self.sense: dict[int, bytes] = {}
        self.mailbox = self.units = UnitRegister(registers)
        self._memory = memory
        self._done = registers.cell("DONE")

    @property
    def shared(self) -> bool:
        return self._memory.view(self.address, self.entries * ENTRY_SIZE, True) is not None

    def ready(self) -> int:
        return (self.announced - self.request_cons) & MASK32

    def taken(self) -> None:
        """The driver sees only what is done."""

    def place(self, number: int) -> int:
        return self.address + number % self.entries * ENTRY_SIZE

    def post(self, fields: list[int]) -> None:
        for at in range(0, len(fields), WIDTH):
            number, _, scsi_status, srb_status, size = fields[at : at + WIDTH]
            result = RESULT.pack(ENDED, scsi_status, srb_status, size, self.sense.get(number, b""))
            self._memory.write(self.place(number) + STATE_AT, result)
            self.sense.pop(number, None)
            self.completion_prod = self._done.value = (self.completion_prod + 1) & MASK32

    def standing(self) -> tuple[int, int]:
        return (self.announced - self.seen) & MASK32, (self.completion_prod - self.seen) & MASK32

    def rebind(self) -> None:
        if not self._memory.enabled:
            raise DmaFault(self.address, ENTRY_SIZE, "bus mastering is off")
        self._memory.buffer([(self.address, self.entries * ENTRY_SIZE)], True)
        self.generation = self._memory.generation
        self.cheap = True
