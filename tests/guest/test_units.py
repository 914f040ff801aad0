"""`hba lun` on a running adapter, and stores that fail, as a real guest sees them.

One guest for all of it: the tests run in the order they are in, each leaves the units as it found them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from hba.control.client import ControlClient
from tests.guest.scratch import scratch
from tests.guest.units import (
    NbdServer,
    SmallFileSystem,
    Units,
    needs_nbdkit,
    needs_root,
    sparse,
    wait_for,
)

pytestmark = pytest.mark.qemu

MIB = 1 << 20
HEALTHY, FULL, SHRINKING, FAILING, LEAVING, REMOVABLE, CD, LOCKED, UNPLUGGED = range(9)
NEW = 12
MANY = range(20, 80)  # targets; the message ring holds 32 messages

BEYOND = 80 * MIB // 512  # a block of SHRINKING that is gone while it is small


class Lab:
    """The units, and what breaks their stores."""

    def __init__(self) -> None:
        self.folder = scratch("hbau-")
        self.mounts: list[SmallFileSystem] = []
        self.servers: list[NbdServer] = []
        self.failure = self.folder / "fail"  # nbdkit's error filter fails requests while this file exists
        self.shrinking = sparse(self.folder / "shrinking", 96 * MIB)
        luns = [
            {"target": HEALTHY, "storage": {"kind": "file", "path": str(sparse(self.folder / "healthy", 64 * MIB))}},
            {"target": SHRINKING, "storage": {"kind": "file", "path": str(self.shrinking)}},
            {
                "target": REMOVABLE,
                "removable": True,
                "storage": {"kind": "file", "path": str(sparse(self.folder / "removable", 32 * MIB))},
            },
            {"target": CD, "type": "cdrom"},
        ]
        if os.geteuid() == 0:
            for target, name in ((FULL, "full"), (LOCKED, "locked")):
                mount = SmallFileSystem(self.folder / name, 16 * MIB)
                self.mounts.append(mount)
                disk = sparse(mount.path / "disk", 64 * MIB)
                luns.append({"target": target, "storage": {"kind": "file", "path": str(disk)}})
        if shutil.which("nbdkit"):
            memory = ("memory", "64M")
            for target, on_gone, arguments in (
                (FAILING, "keep", ("--filter=error", *memory, f"error-file={self.failure}", "error-rate=100%")),
                (LEAVING, "keep", ("file", str(sparse(self.folder / "leaving", 64 * MIB)))),
                (UNPLUGGED, "remove", ("file", str(sparse(self.folder / "unplugged", 64 * MIB)))),
            ):
                server = NbdServer(self.folder / f"nbd{target}", *arguments)
                self.servers.append(server)
                server.start()
                storage = {"kind": "nbd", "uri": server.uri, "hold": 0.5}
                luns.append({"target": target, "storage": storage, "on_gone": on_gone})
        self.units = Units(luns, self.folder, pvscsi={"max_targets": MANY.stop})

    def events(self) -> ControlClient:
        """Hears what the host is told of the units."""
        client = ControlClient(self.units.experiment.adapters[0].control)
        client.call("events.subscribe", topics=["hotplug"])
        return client

    def server(self, target: int) -> NbdServer:
        needs_nbdkit()
        return self.servers[(FAILING, LEAVING, UNPLUGGED).index(target)]

    def close(self) -> None:
        self.units.close()
        for server in self.servers:
            server.stop()
        for mount in self.mounts:
            mount.close()
        shutil.rmtree(self.folder)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with pytest.MonkeyPatch.context() as patch:
        lab = Lab()
        patch.setenv("HBA_RUNTIME_DIR", str(lab.folder / "run"))
        try:
            lab.units.start()
            yield lab
        finally:
            lab.close()


@pytest.fixture
def units(lab: Lab) -> Iterator[Units]:
    """The units; at the end, the one nobody touches must not have noticed anything."""
    lab.units.log()
    node = lab.units.there(HEALTHY)
    yield lab.units
    assert lab.units.read(HEALTHY) == ""
    assert lab.units.there(HEALTHY) == node
    healthy = lab.units.luns()[HEALTHY]
    assert (healthy["read_errors"], healthy["write_errors"]) == (0, 0)
    lab.units.experiment.guest.alive()  # and so does the server


# -- what is acknowledged stays, what is asked for is done ------------------------------------------------------------


def test_switching_the_write_cache_off_writes_it_out(lab: Lab, units: Units) -> None:
    """Linux sends no flush from then on: not even an fsync of what was written before."""
    lab.server(LEAVING)
    node = units.there(LEAVING)
    cache = f"$(ls -d /sys/class/scsi_disk/*:0:{LEAVING}:0)/cache_type"
    assert units.sh(f"cat {cache}").strip() == "write back"
    units.sh(f"dd if=/dev/zero of={node} bs=64k count=8 oflag=direct")
    before = units.luns()[LEAVING]
    assert before["unflushed"]
    units.sh(f"echo 'write through' > {cache}")
    after = units.luns()[LEAVING]
    assert not after["write_cache"] and not after["unflushed"]
    assert after["storage"]["counters"]["flushes"] == before["storage"]["counters"]["flushes"] + 1
    units.sh(f"echo 'write back' > {cache}")
    assert units.luns()[LEAVING]["write_cache"]


BUS_MASTER = r"""
set_command() {{ printf "\\$(printf %03o $(($1 & 255)))\\$(printf %03o $(($1 >> 8)))" \
    | dd of=$config bs=1 seek=4 conv=notrunc 2>/dev/null; }}
config=$(ls -d /sys/bus/pci/drivers/vmw_pvscsi/0000:*)/config
command=$(od -An -tu2 -j4 -N2 $config)
set_command $((command & ~4))
for block in $(seq 16); do
    dd if={node} of=/dev/null bs=4k count=1 skip=$block iflag=direct 2>/dev/null &
done
until [ $(awk '{{ print $1 }}' /sys/block/{name}/inflight) -ge 16 ]; do :; done
set_command $command
wait
od -An -tu2 -j4 -N2 $config
"""


def test_bus_mastering_off_and_on_loses_nothing(units: Units) -> None:
    node = units.there(HEALTHY)
    said = units.sh(BUS_MASTER.format(node=node, name=node.removeprefix("/dev/")))
    assert int(said) & 4
    counters = units.counters()
    assert counters["requests"] == counters["completions"]
    log = units.log()
    assert "abort" not in log and "reset" not in log, log


# -- hba lun --------------------------------------------------------------------------------------------------------


def test_add_and_remove(units: Units) -> None:
    assert units.node(NEW) is None
    units.hba("lun", "add", str(NEW), "--memory", "--size", "32M")
    wait_for(lambda: units.node(NEW), "the added disk is there")
    assert f"msg: device added at scsi0:{NEW}:0" in units.log()
    assert units.size(NEW) == 32 * MIB
    assert units.write(NEW) == ""
    assert units.read(NEW) == ""
    units.hba("lun", "remove", str(NEW))
    wait_for(lambda: units.node(NEW) is None, "the removed disk is gone")
    assert f"msg: device removed at scsi0:{NEW}:0" in units.log()
    assert NEW not in units.luns()


def add(target: int, mib: int) -> list[str]:
    return ["lun", "add", str(target), "--memory", "--size", f"{mib}M"]


def remove(target: int) -> list[str]:
    return ["lun", "remove", str(target)]


def test_sixty_units_come_are_exchanged_and_go_as_fast_as_they_can(lab: Lab, units: Units) -> None:
    """Many more than the message ring holds, and no matter when the guest gets to them."""
    before = units.sizes()
    with lab.events() as events:
        answers = units.hba_at_once([add(target, target) for target in MANY])
        assert {answer["announcement"]["state"] for answer in answers} <= {"posted", "waiting"}
        there = before | {target: target * MIB for target in MANY}
        wait_for(lambda: units.sizes() == there, "the guest has all of them", timeout=180)

        units.hba_at_once([command for target in MANY for command in (remove(target), add(target, 2 * target))])
        there = before | {target: 2 * target * MIB for target in MANY}
        wait_for(lambda: units.sizes() == there, "the guest has the other disks instead", timeout=180)
        assert units.read(MANY[-1]) == ""

        units.hba_at_once([remove(target) for target in MANY])
        wait_for(lambda: units.sizes() == before, "the guest has none of them", timeout=180)
        units.sh("udevadm settle")
        changes = [event["data"]["change"] for event in events.events(timeout=0.1)]
    assert changes.count("added") == changes.count("removed") == 2 * len(MANY)
    counters = units.counters()
    assert counters["messages"] >= 4 * len(MANY) and counters["messages_waiting"] == 0


def test_remove_a_disk_in_use(units: Units) -> None:
    """Its requests end, with an error where they must; the guest goes on."""
    units.hba("lun", "add", str(NEW), "--memory", "--size", "32M")
    wait_for(lambda: units.node(NEW), "the added disk is there")
    node = units.there(NEW)
    units.sh(f"(while dd if=/dev/zero of={node} bs=64k count=400 oflag=direct; do :; done) >/tmp/dd 2>&1 & sleep 1")
    units.hba("lun", "remove", str(NEW))
    wait_for(lambda: units.node(NEW) is None, "the removed disk is gone")
    units.sh("wait; udevadm settle")
    assert "records out" in units.sh("cat /tmp/dd")
    wait_for(lambda: not units.sh("pgrep -x dd || true"), "the writer has ended")


def test_add_where_one_is_or_cannot_be(units: Units) -> None:
    assert "already" in units.hba("lun", "add", str(HEALTHY), "--memory", "--size", "1M", code=9)
    assert "max_targets" in units.hba("lun", "add", "200", "--memory", "--size", "1M", code=9)


def test_resize(units: Units) -> None:
    assert units.size(SHRINKING) == 96 * MIB
    units.hba("lun", "resize", str(SHRINKING), "128M")
    assert units.settled(lambda: units.command(SHRINKING, "00 00 00 00 00 00"))[1] == [
        "Fixed format, current; Sense key: Unit Attention Additional sense: Capacity data has changed"
    ]
    units.rescan(SHRINKING)
    assert units.size(SHRINKING) == 128 * MIB
    assert units.write(SHRINKING, 100 * MIB // 512) == ""
    units.hba("lun", "resize", str(SHRINKING), "96M")
    units.rescan(SHRINKING)
    assert units.size(SHRINKING) == 96 * MIB
    assert "Capacity data has changed" in units.log()


def test_eject_and_insert_a_disk(units: Units) -> None:
    units.hba("lun", "eject", str(REMOVABLE))
    assert "Not Ready Additional sense: Medium not present" in units.read(REMOVABLE)
    assert "No medium found" in units.sh(f"head -c 512 {units.there(REMOVABLE)}", check=False)
    units.hba("lun", "insert", str(REMOVABLE), "--memory", "--size", "16M")
    # Its unit attention goes to whoever asks first, which may be the kernel; what counts is that it sees the medium.
    units.sh(f"head -c 512 {units.there(REMOVABLE)} | wc -c")
    assert units.size(REMOVABLE) == 16 * MIB
    assert "detected capacity change from 0 to 32768" in units.log()
    assert units.read(REMOVABLE) == ""


def test_insert_and_eject_a_cd(lab: Lab, units: Units) -> None:
    image = lab.folder / "cd.iso"
    image.write_bytes(b"hba-cd" + bytes(4 * MIB - 6))
    assert "No medium found" in units.sh("head -c 6 /dev/sr0", check=False)
    units.hba("lun", "insert", str(CD), "--file", str(image), "--read-only")
    wait_for(lambda: units.sh("head -c 6 /dev/sr0", check=False) == "hba-cd", "the guest reads the CD")
    # udev locks the door of a drive with a medium; the guest is told of the wish, and the host may insist.
    units.sh("sg_prevent --prevent=1 /dev/sr0")
    assert "locked" in units.hba("lun", "eject", str(CD), code=9)
    units.hba("lun", "eject", "--force", str(CD))
    wait_for(lambda: "No medium found" in units.sh("head -c 6 /dev/sr0", check=False), "the CD is gone")


def test_a_cd_is_not_ejected_for_the_one_before(lab: Lab, units: Units) -> None:
    """udev ejects what is in the drive when the guest hears that somebody wants it."""
    images = [lab.folder / "first.iso", lab.folder / "second.iso"]
    for image in images:
        image.write_bytes(image.stem.encode() + bytes(4 * MIB - len(image.stem)))
    units.hba("lun", "insert", str(CD), "--file", str(images[0]), "--read-only")
    wait_for(lambda: units.sh("head -c 5 /dev/sr0", check=False) == "first", "the guest reads the first")
    units.sh("echo 0 > /sys/block/sr0/events_poll_msecs; udevadm settle")  # it does not ask what happened ...
    units.sh("sg_prevent --prevent=1 /dev/sr0")
    assert "locked" in units.hba("lun", "eject", str(CD), code=9)
    units.hba("lun", "eject", "--force", str(CD))
    units.hba("lun", "insert", str(CD), "--file", str(images[1]), "--read-only")
    units.sh("echo 500 > /sys/block/sr0/events_poll_msecs")  # ... until now
    wait_for(lambda: not units.luns()[CD]["media_events"], "the guest has asked what happened")
    units.sh("udevadm settle")
    assert units.luns()[CD]["medium"] == "ready"  # before it is opened, which would load it again
    assert units.sh("head -c 6 /dev/sr0", check=False) == "second"
    units.sh("echo -1 > /sys/block/sr0/events_poll_msecs")
    units.hba("lun", "eject", "--force", str(CD))


def test_read_only(units: Units) -> None:
    units.hba("lun", "read-only", str(REMOVABLE))
    assert "Data Protect Additional sense: Write protected" in units.write(REMOVABLE)
    assert units.read(REMOVABLE) == ""
    units.rescan(REMOVABLE)
    assert "Write Protect is on" in units.log()
    units.hba("lun", "read-only", str(REMOVABLE), "off")
    assert units.write(REMOVABLE) == ""
    units.rescan(REMOVABLE)
    assert "Write Protect is off" in units.log()


# -- stores that fail -----------------------------------------------------------------------------------------------


def test_no_space_left(lab: Lab, units: Units) -> None:
    needs_root()
    node = units.there(FULL)

    def fill() -> None:
        said = units.sh(f"dd if=/dev/zero of={node} bs=64k count=600 oflag=direct", check=False)
        assert "No space left on device" in said

    log = units.complaint(fill, "Sense Key")
    assert "Sense Key : Data Protect" in log
    assert "Add. Sense: Space allocation failed write protect" in log
    # The guest is told what sense data can tell, the host why.
    full = units.luns()[FULL]
    assert full["storage_errors"] > 0 and "No space left on device" in full["latest_storage_error"]
    assert units.read(FULL) == ""
    last = 40 * MIB // 512
    assert "Data Protect Additional sense: Space allocation failed" in units.write(FULL, last)
    # Giving blocks back is what makes room, as on any thin device.
    units.sh(f"blkdiscard -l 4194304 {node}")
    assert units.write(FULL, last) == ""


def test_medium_errors(lab: Lab, units: Units) -> None:
    lab.server(FAILING)
    lab.failure.touch()
    assert "Medium Error Additional sense: Unrecovered read error" in units.read(FAILING)
    assert "Medium Error Additional sense: Write error" in units.write(FAILING)
    node = units.there(FAILING)

    def read() -> None:
        assert "error reading" in units.sh(f"dd if={node} of=/dev/null bs=4k count=1 iflag=direct", check=False)

    units.complaint(read, "critical medium error")
    lab.failure.unlink()
    assert units.write(FAILING) == ""
    assert units.read(FAILING) == ""


def test_the_server_leaves_and_comes_back(lab: Lab, units: Units) -> None:
    server = lab.server(LEAVING)
    for end in (server.leave, server.stop):
        end()
        assert "Not Ready Additional sense: Logical unit not ready, cause not reportable" in units.read(LEAVING)
        assert "Not Ready" in units.write(LEAVING)
        assert units.luns()[LEAVING]["medium"] == "gone"
        server.start()
        wait_for(lambda: units.luns()[LEAVING]["medium"] == "ready", "the server is found again")
        said, attentions = units.settled(lambda: units.command(LEAVING, "00 00 00 00 00 00"))
        assert said == ""
        assert [one for one in attentions if "Not ready to ready change" in one]
        assert units.read(LEAVING) == ""
        assert units.write(LEAVING) == ""


def test_a_unit_is_unplugged_with_its_store(lab: Lab, units: Units) -> None:
    server = lab.server(UNPLUGGED)
    assert units.node(UNPLUGGED) is not None
    server.stop()
    wait_for(lambda: units.node(UNPLUGGED) is None, "the disk is gone")
    assert f"msg: device removed at scsi0:{UNPLUGGED}:0" in units.log()
    server.start()
    wait_for(lambda: units.node(UNPLUGGED), "the disk is back", timeout=60)
    assert units.read(UNPLUGGED) == ""


def test_the_file_shrinks(lab: Lab, units: Units) -> None:
    os.truncate(lab.shrinking, 32 * MIB)
    said = units.read(SHRINKING, BEYOND)
    assert "Medium Error" in said or "Logical block address out of range" in said
    wait_for(lambda: units.luns()[SHRINKING]["blocks"] == 32 * MIB // 512, "the adapter sees it")
    assert "Illegal Request Additional sense: Logical block address out of range" in units.read(SHRINKING, BEYOND)
    assert units.read(SHRINKING) == ""
    units.rescan(SHRINKING)
    assert units.size(SHRINKING) == 32 * MIB
    os.truncate(lab.shrinking, 96 * MIB)
    wait_for(lambda: units.luns()[SHRINKING]["blocks"] == 96 * MIB // 512, "the adapter sees it")
    units.rescan(SHRINKING)
    assert units.size(SHRINKING) == 96 * MIB
    assert units.read(SHRINKING, BEYOND) == ""


def test_the_file_is_deleted(lab: Lab, units: Units) -> None:
    """The open file lives on; the adapter says what will happen to it."""
    lab.shrinking.unlink()
    assert units.write(SHRINKING) == ""
    wait_for(lambda: units.luns()[SHRINKING]["storage"]["state"] == "deleted", "the adapter sees it")
    units.hba("lun", "remove", str(SHRINKING))
    wait_for(lambda: units.node(SHRINKING) is None, "the disk is gone")


def test_the_file_system_turns_read_only(lab: Lab, units: Units) -> None:
    """As ext4 does after an error of its own."""
    needs_root()
    assert units.write(LOCKED) == ""
    lab.mounts[1].turn_read_only()
    assert "Data Protect Additional sense: Write protected" in units.write(LOCKED)
    assert units.read(LOCKED) == ""
