"""A real guest whose adapter is saved and restored in another process while it does I/O.

QEMU's vfio-user client sends no message for migration, so a program between the two does (`mover`): the machine is
paused, its memory and its processors stay where they are, and only the device moves.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from hba.control.client import ControlClient
from hba.lab.experiment import Experiment, Options
from hba.lab.progress import Progress
from hba.lab.server import Server
from tests.guest.mover import Mover

pytestmark = pytest.mark.qemu

ROUNDS, PIECE, PLACES = 1500, 65536, 200
# Writes and reads back, past the page cache, for as long as it takes; a difference or an error ends it with a message.
WORK = f"""
import hashlib, json, mmap, os, random
fd = os.open("/dev/sda", os.O_RDWR | os.O_DIRECT)
buffer = mmap.mmap(-1, {PIECE})
known = {{}}
rng = random.Random(1)
def block(number):
    return hashlib.sha512(b"%d" % number).digest() * ({PIECE} // 64)
for number in range({ROUNDS}):
    place = rng.randrange({PLACES})
    if place in known and number % 2:
        assert os.preadv(fd, [buffer], place * {PIECE}) == {PIECE}
        assert buffer[:] == block(known[place]), (number, place)
    else:
        buffer[:] = block(number)
        assert os.pwritev(fd, [buffer], place * {PIECE}) == {PIECE}
        known[place] = number
    with open("/tmp/round", "w") as file:
        file.write(str(number))
os.fsync(fd)
with open("/tmp/result.new", "w") as file:
    json.dump(known, file)
os.rename("/tmp/result.new", "/tmp/result")
"""


@pytest.mark.parametrize("port", ["storport", "scsiport"])
def test_a_guests_io_goes_on_behind_another_server(port: str) -> None:
    with Experiment(Options(port_model=port), Progress()) as experiment:
        experiment.start_device()
        adapter = experiment.adapters[0]
        config = experiment.folder / "config.toml"
        mover = Mover(experiment.folder / "mover.sock", adapter.socket)
        experiment.adapters[0] = dataclasses.replace(adapter, socket=experiment.folder / "mover.sock")
        experiment.start_guest()
        guest, first = experiment.guest, experiment._parts.server
        assert first is not None
        agent = guest.agent
        agent.exec(["dmesg", "--clear"], check=True)
        agent.put("/tmp/work.py", WORK.encode())
        agent.exec(["sh", "-c", "python3 /tmp/work.py > /tmp/said 2>&1 &"], check=True)
        servers: list[Server] = [first]

        def another() -> Path:
            folder = experiment.folder / f"server{len(servers)}"
            folder.mkdir()
            assert servers[-1].stop() == 0
            servers.append(Server(config, folder))
            experiment._parts.server = servers[-1]
            guest._others_alive = servers[-1].alive
            return servers[-1].wait_listening()[0].socket

        def reached() -> int:
            return int(agent.exec(["cat", "/tmp/round"]).stdout or b"0")

        rounds = []
        for _ in range(3):
            before = reached()
            while reached() < before + 50:
                assert agent.exec(["pgrep", "-f", "work.py"]).code == 0, agent.get("/tmp/said")
            guest.monitor.execute("stop")
            state = mover.move(another)
            guest.monitor.execute("cont")
            rounds.append(before)
            assert b'"rings":{' in state
        deadline = 120.0
        agent.exec(
            ["sh", "-c", "while [ ! -e /tmp/result ] && pgrep -f work.py > /dev/null; do sleep 0.2; done"],
            timeout=deadline,
        )
        said = agent.exec(["sh", "-c", "cat /tmp/said; dmesg | tail -20"]).stdout.decode()
        assert agent.exec(["test", "-e", "/tmp/result"]).code == 0, said
        known = json.loads(agent.get("/tmp/result"))
        assert said == "", f"the guest has noticed: {said}"
        disk = experiment.disks[0].file
        assert disk is not None
        data = disk.read_bytes()
        for place, number in known.items():
            at = int(place) * PIECE
            assert data[at : at + PIECE] == hashlib.sha512(b"%d" % number).digest() * (PIECE // 64)
        assert len(known) == PLACES and max(rounds) < ROUNDS - 50
        with ControlClient(adapter.control) as control:
            assert control.call("show.counters")["adapter"]["requests"] > 50
        print(f"{port}: moved at rounds {rounds}, {mover.messages} messages, a state of {len(state)} bytes")
        mover.close()
