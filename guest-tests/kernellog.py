"""The kernel's log (/dev/kmsg): is there anything in it that tells of trouble with a disk or its driver?"""

from __future__ import annotations

import os
import re

# Any message at these levels counts (Documentation/ABI/testing/dev-kmsg): emergency, alert, critical, error.
_ALWAYS = 3
# Below that, what the SCSI layer, the drivers and the file systems say when something is wrong.
_SUSPICIOUS = re.compile(
    r"I/O error|"
    r"\b(sd|scsi|sg) \S+:.*(fail|error|abort|reset|timed? ?out|timing out|offline|Sense Key|hostbyte)|"
    r"(EXT4|XFS|BTRFS).*(error|corrupt|warning)|"
    r"\bBUG:|\bWARNING:|Oops|Call Trace|blocked for more than|soft lockup|DMAR:|AER:|critical (medium|target|space)",
    re.IGNORECASE,
)
# What a driver says so; which driver, the host knows.
_OF_DRIVER = r"({}).*(fail|error|abort|reset|timeout|unexpected|unknown)"
# Every disk announces its first unit attention like this; it is how SCSI works.
_HARMLESS = re.compile(r"Power-on or device reset occurred")


class KernelLog:
    """The messages since this object was made, or with `everything` since boot.

    `drivers`: patterns of the messages of the drivers under test. `expected`: of those that are no trouble; a test may
    add some.
    """

    def __init__(self, drivers: tuple[str, ...], everything: bool = False) -> None:
        self.drivers = re.compile("|".join(drivers), re.IGNORECASE)
        self.expected: list[str] = []
        self._suspicious = re.compile(_OF_DRIVER.format("|".join(drivers)), re.IGNORECASE)
        self._fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        if not everything:
            os.lseek(self._fd, 0, os.SEEK_END)

    def messages(self) -> list[tuple[int, str]]:
        """Level (0 emergency ... 7 debug) and text of each new message of the kernel itself."""
        found = []
        while True:
            try:
                record = os.read(self._fd, 8192).decode(errors="replace")
            except BlockingIOError:
                return found
            except BrokenPipeError:  # messages were overwritten before we read them; go on with the next
                continue
            header, _, text = record.partition(";")
            priority = int(header.split(",")[0])
            if priority >> 3 == 0:  # facility 0: not what a program wrote to /dev/kmsg
                found.append((priority & 7, text.split("\n")[0]))

    def trouble(self) -> list[str]:
        """The messages that tell of trouble and match none of the `expected` patterns."""
        return [
            text
            for level, text in self.messages()
            if (level <= _ALWAYS or _SUSPICIOUS.search(text) or self._suspicious.search(text))
            and not _HARMLESS.search(text)
            and not any(re.search(pattern, text) for pattern in self.expected)
        ]
