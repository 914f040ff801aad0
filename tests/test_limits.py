"""docs/limits.md says what the code has."""

from __future__ import annotations

from pathlib import Path

import pytest

from hba import verifier
from hba.adapters.pvscsi import adapter, scatter, structures
from hba.adapters.ring import inflight, turn
from hba.clock import S
from hba.control import protocol
from hba.control import server as control
from hba.pci import release
from hba.scsi import medium, reservations, server, state
from hba.scsi.disk import copy, protection, provisioning, verify, wipe
from hba.scsi.spc import buffers, diagnostic
from hba.vfio_user import connection, dma_messages
from hba.vfio_user import protocol as wire
from tests.conftest import LIMIT

TEXT = (Path(__file__).parents[1] / "docs" / "limits.md").read_text("utf-8")
MIB, KIB = 1 << 20, 1 << 10


@pytest.mark.parametrize(
    "sentence",
    [
        f"more than {LIMIT} ms of CPU",
        f"| {turn.TURN_REQUESTS} requests, {turn.TURN_BYTES // MIB} MiB, {turn.TURN_PIECES} pieces",
        f"requests that have more than {inflight.MANY} | the rest stays",
        f"| READ, WRITE | {medium.MAX_TRANSFER_BYTES // MIB} MiB",
        f"EXTENDED COPY | {verify.CHUNK // MIB} MiB",
        f"SANITIZE BLOCK ERASE | {wipe.PIECE // MIB} MiB",
        f"checked or made | {protection.PIECE // MIB} MiB",
        f"memory that is unmapped | {release.PIECE // MIB} MiB; {release.MOST} maps wait at most",
        f"| GET LBA STATUS | {provisioning.LOOKS} questions",
        f"waits for a store | {medium.SETTLE:.0f} s",
        f"after one of {control.COSTLY / 1e6} ms or more",
        f"at most {structures.SETUP_RINGS_MAX_PAGES * 32} requests",
        f"| {scatter.MAX_ELEMENTS}, in at most {structures.SG_MAX_SEGMENTS} segments",
        f"| {inflight.MAX_PIECES} (some",
        f"| bytes of one request | {adapter.MAX_TRANSFER // MIB} MiB",
        f"| tasks waiting in a unit | {server.MAX_WAITING} |",
        f"| {reservations.MAX_REGISTRATIONS} a unit |",
        f"| {buffers.DATA_CAPACITY // KIB} KiB, {buffers.ECHO_CAPACITY // KIB} KiB |",
        f"| {copy.KEPT_RESULTS}, {diagnostic._KEPT} |",
        f"| DMA maps | {wire.MAX_DMA_MAPS},",
        f"| {dma_messages.MAX_DEFERRED}, {dma_messages.MAX_DEFERRED_BYTES // MIB} MiB |",
        f"it has {connection.VERSION_TIMEOUT // S} s to say VERSION",
        f"| {protocol.MAX_CLIENTS}; {protocol.MAX_LINE // MIB} MiB a line, {protocol.MAX_BACKLOG // MIB} MiB of",
        f"the newest {verifier.KEPT};",
        f"| {state.MAX_SIZE // MIB} MiB | refused",
    ],
)
def test_every_number_of_the_tables(sentence: str) -> None:
    assert sentence in TEXT


def test_a_rest_is_three_times_as_long() -> None:
    assert control.REST == 3 and "three times as long" in TEXT
