"""LOG SENSE (SPC-4) over log pages a unit declares."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hba.scsi.command import CommandTable
from hba.scsi.sense import invalid_cdb
from hba.scsi.server import DeviceServer
from hba.scsi.task import Task

commands = CommandTable()

SUPPORTED_PAGES = 0x00
ALL_SUBPAGES = 0xFF

Parameter = tuple[int, int, bytes]  # parameter code, control byte, value

# FORMAT AND LINKING (SPC-4): 00b bounded data counter, 11b binary list
COUNTER = 0x00
BINARY_LIST = 0x03


class LogPages:
    """Pages by (code, subcode): a function that returns the page's parameters in ascending order."""

    def __init__(self, pages: Mapping[tuple[int, int], Callable[[], list[Parameter]]]) -> None:
        self._pages = dict(pages)

    def page(self, code: int, subcode: int, first: int) -> bytes | None:
        """A whole page from parameter `first` on; None when there is no such page or parameter."""
        if code == SUPPORTED_PAGES and subcode == 0:
            body = bytes(sorted({SUPPORTED_PAGES, *(key[0] for key in self._pages if not key[1])}))
            return self._with_header(code, 0, body)
        if subcode == ALL_SUBPAGES:
            keys = {(0x00, 0x00), (0x00, ALL_SUBPAGES), *self._pages}
            if code:
                keys = {key for key in keys if key[0] == code}
                if not keys:
                    return None
            return self._with_header(code, subcode, b"".join(bytes(key) for key in sorted(keys)))
        source = self._pages.get((code, subcode))
        if source is None:
            return None
        parameters = source()
        chosen = [parameter for parameter in parameters if parameter[0] >= first]
        if first and not chosen:
            return None
        body = b"".join(
            number.to_bytes(2, "big") + bytes((control, len(value))) + value for number, control, value in chosen
        )
        return self._with_header(code, subcode, body)

    @staticmethod
    def _with_header(code: int, subcode: int, body: bytes) -> bytes:
        return bytes((code | (0x40 if subcode else 0), subcode)) + len(body).to_bytes(2, "big") + body


@commands.add("4d 00 ff ff 00 ffff ffff 00", "LOG SENSE", allocation=(7, 2), values={(2, 0xC0): (0, 1)})
def log_sense(unit: DeviceServer, task: Task) -> bytes:
    """Cumulative values (PC 01b), and as such also thresholds' and defaults' place holders are refused."""
    cdb = task.cdb
    first = int.from_bytes(cdb[5:7], "big")
    page = unit.logs.page(cdb[2] & 0x3F, cdb[3], first)
    if page is None:
        known = unit.logs.page(cdb[2] & 0x3F, cdb[3], 0)
        raise invalid_cdb(2, 5) if known is None else invalid_cdb(5)
    return page
