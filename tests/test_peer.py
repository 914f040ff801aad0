from __future__ import annotations

import os
import threading
from pathlib import Path

from hba.peer import called


def test_a_process_is_called_by_number_and_name_and_cannot_speak_to_a_terminal() -> None:
    comm = Path("/proc/thread-self/comm")
    told = []

    def renamed() -> None:
        comm.write_bytes(b"\x1b[31mred")  # of this thread alone
        told.append(called(threading.get_native_id()))

    thread = threading.Thread(target=renamed)
    thread.start()
    thread.join()
    assert told[0].endswith(r"(\x1b[31mred)")
    assert called(os.getpid()).startswith(f"pid {os.getpid()} (")


def test_one_that_is_not_there_has_its_number_only() -> None:
    assert called(0) == "pid 0"
