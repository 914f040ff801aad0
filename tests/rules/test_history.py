"""What a finding says of the request it is about: everything that has happened to it, oldest first, within a bound; and
from where a miniport may notify."""

from __future__ import annotations

import pytest

from hba import srb as s
from hba.clock import MS
from hba.instruments.verifier.watcher import LONGEST_HISTORY
from hba.miniport.services import BUS_CHANGE_DETECTED, CALL_ENABLE_INTERRUPTS
from hba.port.scsiport.config import ScsiPortConfig
from hba.srb import Srb
from tests.port.fakes import TAGGED, FakeMiniport, Rig
from tests.port.storport.rig import Rig as StorRig


def make(miniport: FakeMiniport | None = None) -> Rig:
    return Rig(miniport or FakeMiniport(**TAGGED), ScsiPortConfig(auto_release=False), traced=False)


def test_the_whole_story() -> None:
    rig = make()
    srb = rig.command()
    held = rig.held(srb)
    rig.clock.advance(2 * MS)
    rig.miniport.port.log_error(held, 0, 0, 0, 1, 1)
    rig.clock.advance(1 * MS)
    rig.finish(held, s.SRB_STATUS_ERROR)
    held.lun  # noqa: B018 - the access is the point
    story = (
        "0.000000 submit",
        "0.002000 log_error 0:0:0 code 0x0001 id 1",
        "0.003000 notification RequestComplete from hw_interrupt",
    )
    first, last = rig.verifier.findings
    assert (first.rule, first.history) == ("ER-01", story)
    assert first.srb == "#1 0:0:0 cdb 28000000000000000100 length 512 status 0x04/0x00"
    assert first.details == {"callback": "hw_interrupt", "irql": "DIRQL"}
    assert (last.rule, last.history[:3]) == ("OW-01", story)
    assert last.history[-1] == "0.003000 complete"
    assert last.details == {"callback": "no callback", "irql": "PASSIVE_LEVEL"}
    rig.close()


def test_what_the_port_asks_for_itself_says_why() -> None:
    rig = make(FakeMiniport("next"))
    rig.command()
    rig.finish(status=s.SRB_STATUS_ERROR, scsi_status=s.SCSISTAT_CHECK_CONDITION)
    rig.finish(status=s.SRB_STATUS_ERROR)
    assert rig.verifier.findings[-1].history[0] == "0.000000 submit REQUEST SENSE for #1"
    rig.close()


@pytest.mark.parametrize("notes", [LONGEST_HISTORY - 2, LONGEST_HISTORY - 1, LONGEST_HISTORY, LONGEST_HISTORY + 5])
def test_a_story_has_an_end(notes: int) -> None:
    """A miniport that never stops logging is not remembered for ever."""
    rig = make()
    held = rig.held(rig.command())
    for _ in range(notes):
        rig.miniport.port.log_error(held, 0, 0, 0, 1, 1)
    rig.finish(held, s.SRB_STATUS_ERROR)
    history = rig.verifier.findings[-1].history
    assert len(history) == LONGEST_HISTORY
    assert ("notification" in history[-1]) == (notes == LONGEST_HISTORY - 2)
    rig.close()


class Misplacing(FakeMiniport):
    """Notifies where it should not."""

    def hw_reset_bus(self, path_id: int) -> bool:
        self.port.notification(CALL_ENABLE_INTERRUPTS, lambda: None)
        return super().hw_reset_bus(path_id)


def test_a_notification_from_the_wrong_place() -> None:
    """IN-04 names the only callbacks there are for it. Elsewhere the documents are silent, and it is a warning."""
    rig = make(Misplacing(**TAGGED))
    rig.command(time_out_value=1)
    rig.seconds(30)
    found = [(finding.rule, finding.severity, finding.message) for finding in rig.verifier.findings]
    assert ("IN-04", "violation", f"notification {CALL_ENABLE_INTERRUPTS} from hw_reset_bus") in found
    rig.close()


def test_where_the_documents_say_nothing_at_all() -> None:
    """Of the callbacks that came later there is no matrix: a notification, or a completion, is taken as it comes."""
    rig = StorRig(start=False)
    rig.scripted.find = lambda info: rig.scripted.port.notification(BUS_CHANGE_DETECTED)
    held: list[Srb] = []

    def control(kind: int, parameters: object) -> int:
        rig.scripted.port.notification(BUS_CHANGE_DETECTED)
        for srb in held:
            rig.scripted.complete(srb)
        held.clear()
        return 1

    rig.scripted.control = control
    rig.port.start()
    assert rig.messages("SP-09") == [f"notification {BUS_CHANGE_DETECTED} from hw_find_adapter"]
    assert rig.verifier is not None and [finding.severity for finding in rig.verifier.findings] == ["warning"]
    rig.submit()
    held += rig.scripted.started
    rig.port.reset_adapter()
    assert "SP-07" not in rig.found
    rig.close()
