"""Rules of SCSI Port, and those both models share (SP, Q, OW, IN, ER, CF)."""

# ruff: noqa: E501 - prose in a table

from __future__ import annotations

from hba.rules import sources as d
from hba.rules.rule import ENFORCED, NOTE, VERIFIED, VIOLATION, WARNING, Rule

_SP, _BOTH = "scsiport", "both"
_E, _V, _EV = (ENFORCED,), (VERIFIED,), (ENFORCED, VERIFIED)


def _rule(
    id: str,
    title: str,
    model: str,
    text: str,
    source: tuple[str, ...],
    check: str,
    held: tuple[str, ...],
    severity: str = VIOLATION,
    counterpart: str = "",
) -> Rule:
    return Rule(id, title, model, text, d.titles(*source), check, held, severity, counterpart)


_DISPATCH = (
    _rule(
        "SP-01",
        "the port queues without limit",
        _SP,
        "Every request from above goes into a queue of the port; upper drivers may queue as many as they like and need "
        "not know the adapter's limits.",
        (d.S1, d.QM),
        "submit never blocks or refuses for depth; what the miniport has stays within its limits while the queue grows.",
        _E,
    ),
    _rule(
        "SP-02",
        "pull: nothing is started until the miniport asks",
        _SP,
        "From class driver to port is asynchronous, from port to target synchronous: after a start-I/O no further "
        "request goes down until the miniport notifies that it is ready for one.",
        (d.S1, d.IOM),
        "The adapter's slot is BUSY from hw_start_io until NextRequest or NextLuRequest; nothing is started while BUSY.",
        _E,
    ),
    _rule(
        "SP-03",
        "one current packet per adapter",
        _SP,
        "Requests of all units go through one current packet per adapter; what arrives meanwhile waits in the adapter's "
        "queue, in front of which each unit has its own sorted queue.",
        (d.S1, d.ROS),
        "Two levels of queues: per unit (sorted) and per adapter (in order of arrival), feeding one slot.",
        _E,
    ),
    _rule(
        "SP-04",
        "DriverStartIo prepares, then runs the miniport synchronised",
        _SP,
        "DriverStartIo is the port's: it prepares the SRB and runs the miniport's start-I/O synchronised with the "
        "interrupt.",
        (d.S1, d.ROS),
        "The trace shows driver_start_io.enter, then start_io.enter and start_io.exit of the same request.",
        _E,
    ),
    _rule(
        "SP-05",
        "interrupts are masked during start-I/O",
        _SP,
        "Start-I/O runs at the interrupt's level: it has exclusive access, and an interrupt raised meanwhile is "
        "delivered when it has returned.",
        (d.S1, d.UBI, d.ROS),
        "An interrupt raised while a callback runs stays pending; hw_interrupt is never entered inside hw_start_io.",
        _E,
    ),
    _rule(
        "SP-06",
        "start-I/O returns TRUE",
        _SP,
        "hw_start_io always returns TRUE, also when it could not start the request: what went wrong is said in the SRB.",
        (d.RET,),
        "Any other return value is a finding. On FALSE the request fails with INTERNAL_ERROR and the slot is opened.",
        _V,
    ),
    _rule(
        "SP-07",
        "one completion and one next for every request",
        _SP,
        "Every SRB given to start-I/O needs exactly one RequestComplete and one NextRequest or NextLuRequest. Without "
        "the next the adapter stands still.",
        (d.RET, d.SPN),
        "A slot BUSY for `stuck_after` seconds with requests waiting, one BUSY for the request's time-out, and one "
        "still BUSY after a reset hold are findings. RequestComplete from hw_find_adapter or hw_initialize is a warning.",
        _V,
    ),
    _rule(
        "SP-08",
        "next and complete come in any order",
        _SP,
        "The documents show both orders, next first and completion first; neither is wrong.",
        (d.SPN, d.INT, d.RET),
        "Both orders are accepted without a finding.",
        _E,
    ),
    _rule(
        "SP-09",
        "notifications are latched and acted on in a DPC",
        _SP,
        "What the miniport notifies takes effect after its callback, in this order: timer, next, reset hold, ready units, "
        "next packet, completions, the routine that enables interrupts.",
        (d.ROS,),
        "Notifications only set latches; one round of the DPC acts on them in that order; no callback is entered from "
        "inside a notification. A notification type that does not exist is a finding.",
        _EV,
    ),
    _rule(
        "SP-10",
        "NextRequest opens the adapter, not the unit",
        _SP,
        "NextRequest: ready for a request to a unit that is not busy now. To be sent as early as possible.",
        (d.SPN,),
        "It clears BUSY; a unit that has handed on a request gets its next one by NextLuRequest or a completion only. "
        "From hw_find_adapter it is a warning.",
        _EV,
        WARNING,
    ),
    _rule(
        "SP-11",
        "NextLuRequest needs overlapping requests",
        _SP,
        "NextLuRequest: ready, and this unit may get another one. Only for adapters that queue several requests per unit.",
        (d.SPN,),
        "Without TaggedQueuing and MultipleRequestPerLu it is a finding. It implies NextRequest.",
        _EV,
    ),
    _rule(
        "SP-12",
        "no NextLuRequest while an untagged request is active",
        _SP,
        "While an untagged request is active on a unit nothing else can be started there.",
        (d.V_S, d.BC, d.ROS),
        "It is a finding; the part for the unit is ignored, the part for the adapter counts. Microsoft's recommended "
        "verifier setting switches this one off as too strict; use an override to make it a warning.",
        _EV,
        VIOLATION,
        "0xF1 parameter 0x1005",
    ),
    _rule(
        "SP-13",
        "one request per unit without overlap",
        _SP,
        "Without tagged queuing and MultipleRequestPerLu a unit has at most one request outstanding.",
        (d.PCI_S, d.ROS),
        "The unit's depth is 1; its completion makes it ready.",
        _E,
    ),
    _rule(
        "SP-14",
        "DISABLE_DISCONNECT holds the bus",
        _SP,
        "A request that may not disconnect blocks the whole adapter until it completes, whatever the miniport notifies.",
        (d.SRB, d.ROS),
        "Nothing is started between such a request's start-I/O and its completion.",
        _E,
    ),
    _rule(
        "SP-15",
        "a next too many does no harm",
        _SP,
        "NextRequest when nothing is to be opened is ignored.",
        (d.ROS,),
        "Counted as `spurious next`; no finding.",
        _E,
    ),
)

_QUEUE = (
    _rule(
        "Q-01",
        "one sorted queue per unit",
        _SP,
        "Each unit has its own queue, sorted by QueueSortKey. If nothing is in the way the request starts at once.",
        (d.SRB, d.ROS),
        "A queue object per path:target:lun; an idle unit's request goes to the adapter at once.",
        _E,
    ),
    _rule(
        "Q-02",
        "one-directional elevator",
        _SP,
        "Next is the first entry with a key above the last started one; without one, the lowest. Equal keys in order of "
        "arrival.",
        (d.ROS,),
        "Within a sweep keys never decrease (property test).",
        _E,
    ),
    _rule(
        "Q-03",
        "what inhibits a unit",
        _SP,
        "A unit gets nothing while it is at its depth, frozen, locked, waits to retry a busy request, has a full queue, "
        "waits for sense data, or has an untagged request waiting.",
        (d.ROS,),
        "One set of hold bits per unit; the snapshot names each reason.",
        _E,
    ),
    _rule(
        "Q-04",
        "frozen and locked are two things",
        _SP,
        "Frozen: stopped because of an error. Locked: stopped because somebody above asked for it.",
        (d.QM,),
        "Two independent states, two bypass flags; releasing one leaves the other.",
        _E,
    ),
    _rule(
        "Q-05",
        "what freezes a queue",
        _SP,
        "CHECK CONDITION or COMMAND TERMINATED, a time-out, a bus reset during the request, and its termination by a "
        "message such as ABORT.",
        (d.FRZ, d.RQ),
        "A table; the failed SRB goes up with SRB_STATUS_QUEUE_FROZEN. Option freeze_on_any_error: as ReactOS does it.",
        _E,
    ),
    _rule(
        "Q-06",
        "NO_QUEUE_FREEZE",
        _SP,
        "Suppresses the freeze for this one SRB. While the port itself fetches sense data the unit is held all the same.",
        (d.FRZ, d.ROS),
        "Tested with and without sense data to fetch.",
        _E,
    ),
    _rule(
        "Q-07",
        "what passes a frozen queue",
        _SP,
        "New requests are queued; only the port's own REQUEST SENSE, power requests and requests with "
        "BYPASS_FROZEN_QUEUE pass, straight to the adapter's queue.",
        (d.FRZ, d.RQ, d.ROS),
        "Nothing else is started on a frozen unit; what was on its way to the adapter goes back into the queue.",
        _E,
    ),
    _rule(
        "Q-08",
        "a bypass only bypasses",
        _SP,
        "One sentence of the documentation says that a bypassing request flushes the queue; the separate FLUSH_QUEUE "
        "function and ReactOS say it does not.",
        (d.FRZ, d.RQ, d.INFERRED),
        "Option bypass_flushes, off by default.",
        _E,
    ),
    _rule(
        "Q-09",
        "RELEASE_QUEUE",
        _SP,
        "Unfreezes the queue and starts it again; on an unfrozen one it succeeds and does nothing. A queue nobody "
        "releases keeps its unit unreachable.",
        (d.RQ, d.ROS),
        "A queue frozen for `stuck_after` seconds is reported with the request that froze it.",
        _EV,
        WARNING,
    ),
    _rule(
        "Q-10",
        "FLUSH_QUEUE",
        _SP,
        "The adapter's cache is flushed, then everything queued ends with REQUEST_FLUSHED and the queue is released. Not "
        "to be used on a queue that is not frozen (ReleaseQueue's page, ReactOS); the page of the function itself names "
        "no such condition.",
        (d.FLU, d.RQ, d.ROS),
        "A FLUSH to a miniport with CachesData comes first, and its status is the request's. On an unfrozen queue: a "
        'finding, and INVALID_REQUEST (or with `flush_unfrozen = "flush"` the flush); with requests active: a note.',
        _EV,
    ),
    _rule(
        "Q-11",
        "LOCK_QUEUE and UNLOCK_QUEUE",
        _BOTH,
        "A locked queue runs nothing but requests with BYPASS_LOCKED_QUEUE; UNLOCK_QUEUE must carry that flag itself. "
        "No driver bypasses or undoes another driver's lock.",
        (d.LCK, d.SRB),
        "An UNLOCK_QUEUE without the flag, a bypass or unlock of another owner's lock (`original_request` names the "
        "owner) and a queue locked for `stuck_after` seconds are findings, in both models.",
        _EV,
    ),
    _rule(
        "Q-12",
        "lock, power, unlock",
        _SP,
        "Around a change of power: LOCK_QUEUE, the power SRB with bypass, UNLOCK_QUEUE with bypass.",
        (d.LCK,),
        "The sequence is run in a test: nothing else passes in between, and everything afterwards.",
        _E,
    ),
    _rule(
        "Q-13",
        "QUEUE_FROZEN is the port's",
        _BOTH,
        "A miniport never sets SRB_STATUS_QUEUE_FROZEN.",
        (d.SRB, d.XSRB),
        "Checked at RequestComplete; the bit is cleared.",
        _EV,
    ),
    _rule(
        "Q-14",
        "tags",
        _SP,
        "Tags come from a fixed pool, never 0. A request is tagged when it has QUEUE_ACTION_ENABLE or NO_QUEUE_FREEZE and "
        "may disconnect; else it is untagged (FF) and waits until the unit's tagged ones are done. Without a free tag "
        "the adapter waits for the next completion.",
        (d.ROS,),
        "Live tags are unique; no untagged start-I/O with tagged requests outstanding on the unit.",
        _E,
    ),
    _rule(
        "Q-15",
        "size of the tag pool",
        _SP,
        "Registry NumberOfRequests, 16 to 512, default 16; the pool has twice that.",
        (d.ROS,),
        "Option number_of_requests. A tag is one byte and FF is taken, so never more than 254.",
        _E,
    ),
    _rule(
        "Q-16",
        "SHUTDOWN and FLUSH",
        _BOTH,
        "Reach the miniport only if it set CachesData; otherwise the port completes them with success.",
        (d.SRB, d.HBI, d.ROS),
        "No start-I/O for either with CachesData FALSE.",
        _E,
    ),
    _rule(
        "Q-17",
        "addresses the adapter cannot have",
        _BOTH,
        "A request for a path, target or LUN beyond what the adapter has ends with NO_DEVICE and never reaches the "
        "miniport.",
        (d.ROS,),
        "Checked at the upper edge against the configuration.",
        _E,
    ),
)

_OWNERSHIP = (
    _rule(
        "OW-01",
        "after RequestComplete the SRB is the port's",
        _BOTH,
        "The miniport must not touch it, nor pass it to any routine, such as LogError.",
        (d.SPN, d.STN),
        "The miniport gets a stand-in for the SRB that reports every access after completion; mapped data buffers "
        "report likewise.",
        _V,
    ),
    _rule(
        "OW-02",
        "an SRB is completed once",
        _BOTH,
        "A second RequestComplete, or one for an SRB the miniport does not own, is an error; it is ignored.",
        (d.BC, d.ROS),
        "The SRB's owner is tracked: QUEUED, ISSUED, NOTIFIED, COMPLETED.",
        _EV,
        VIOLATION,
        "0xF1 parameter 0x1003 (SCSI Port), 0x2004 (Storport)",
    ),
    _rule(
        "OW-03",
        "a valid status",
        _BOTH,
        "Completion with PENDING, or with a status that does not exist, is invalid.",
        (d.V_S, d.ROS),
        "Checked against the list of SrbStatus with the modifier bits off; goes up as INTERNAL_ERROR.",
        _EV,
        VIOLATION,
        "0xF1 parameter 0x1004 (SCSI Port)",
    ),
    _rule(
        "OW-04",
        "SUCCESS means GOOD",
        _BOTH,
        "An EXECUTE_SCSI that ends with a ScsiStatus other than GOOD is reported as SRB_STATUS_ERROR.",
        (d.SRB, d.ROS),
        "Checked at completion.",
        _V,
    ),
    _rule(
        "OW-05",
        "a successful transfer moved something",
        _SP,
        "A read or write does not succeed with DataTransferLength 0.",
        (d.ROS,),
        "Checked for READ and WRITE unless nothing was asked for.",
        _V,
    ),
    _rule(
        "OW-06",
        "which members a miniport writes",
        _BOTH,
        "SrbStatus and ScsiStatus; DataTransferLength on underrun; SenseInfoBufferLength if less came back; the direction "
        "if it was unspecified; Lun if more than 8 units are mapped. Private state goes into the SRB extension.",
        (d.MOD, d.SRB),
        "Every write goes through the stand-in, with the source line; other writes are dropped. Lengths are compared at "
        "completion.",
        _EV,
    ),
    _rule(
        "OW-07",
        "underrun is reported",
        _BOTH,
        "Fewer bytes than asked for: DATA_OVERRUN and the lower DataTransferLength.",
        (d.SRB, d.ERR),
        "Compared with what the device really moved. Lower length with SUCCESS is a warning, DATA_OVERRUN with the old "
        "length a violation.",
        _V,
    ),
    _rule(
        "OW-08",
        "the SRB extension",
        _BOTH,
        "There is one only if SrbExtensionSize is not 0; the port does not initialise it; the adapter can reach it; it is "
        "gone after completion.",
        (d.SRB, d.V_S),
        "It is filled with poison when it is lent and when it comes back. Using it without having asked for one, setting "
        "the pointer, touching it after completion and bytes that changed since are findings.",
        _V,
        VIOLATION,
        "bug check 0xD1",
    ),
    _rule(
        "OW-09",
        "which members are valid",
        _BOTH,
        "RESET_BUS has only a path, RESET_DEVICE a path and target; ABORT and TERMINATE_IO an address and NextSrb; FLUSH and "
        "SHUTDOWN an address; IO_CONTROL flags, time-out, buffer and length.",
        (d.SRB, d.HBI),
        "Reading any other member is a finding and gives poison; so is what is no member of an SRB but lies with it here: "
        "its memory (mdl), who made it (completion, context).",
        _V,
        WARNING,
    ),
    _rule(
        "OW-10",
        "LUN FF means all units",
        _SP,
        "No unit has this LUN.",
        (d.MOD,),
        "Refused at the upper edge like an address the adapter cannot have.",
        _E,
    ),
)

_INTERRUPT = (
    _rule(
        "IN-01",
        "is it our interrupt?",
        _BOTH,
        "hw_interrupt first decides whether its adapter interrupted, and returns FALSE quickly if not.",
        (d.INT, d.HIN),
        "TRUE while the line was not asserted is a finding; option shared_interrupt_every injects interrupts of others. "
        "FALSE although it dismissed ours is a warning.",
        _V,
    ),
    _rule(
        "IN-02",
        "dismiss the interrupt",
        _BOTH,
        "hw_interrupt dismisses the interrupt at the adapter; the line is level triggered and interrupts again otherwise.",
        (d.INT,),
        "After `interrupt_storm_limit` calls in a row with the line still up it is reported and left alone until it is "
        "raised again.",
        _EV,
    ),
    _rule(
        "IN-03",
        "how long a callback may take",
        _BOTH,
        "A stall is 1 ms at most outside initialisation and never above 0.1 s; no callback takes more than 0.5 s "
        "(hw_initialize 5 s, hw_find_adapter any time). From 50 us on an interrupt routine should defer.",
        (d.TMR, d.DEF, d.HIN, d.V_S),
        "Stalls are charged to the callback in virtual time. Above 0.1 s and 0.5 s: violation, above 1 ms: warning, "
        "above 50 us in hw_interrupt: note.",
        _V,
        VIOLATION,
        "0xF1 parameter 0x1001 (SCSI Port), 0x2001 (Storport) for a stall; 0x1002 (SCSI Port) for a callback",
    ),
    _rule(
        "IN-04",
        "deferral by CallEnableInterrupts and CallDisableInterrupts",
        _SP,
        "hw_interrupt disables the adapter's interrupts, notifies CallEnableInterrupts and returns. The port runs that "
        "routine with system interrupts enabled and does not call hw_interrupt meanwhile. It ends with "
        "CallDisableInterrupts, whose routine runs alone and enables the adapter's interrupts again.",
        (d.SPN, d.DEF),
        "Findings: the adapter's interrupts still enabled, the wrong callback, a routine that returns without "
        "CallDisableInterrupts. hw_interrupt is never called while deferred.",
        _EV,
    ),
    _rule(
        "IN-05",
        "one timer",
        _BOTH,
        "A new RequestTimerCall replaces the old one; the interval is in microseconds, 0 cancels; about 10 ms resolution; "
        "one call per request; never together with hw_interrupt.",
        (d.TMR, d.SPN, d.STN),
        "One slot on the port's clock, never early, rounded up to timer_resolution.",
        _EV,
        WARNING,
    ),
    _rule(
        "IN-06",
        "a timer needs a routine",
        "storport",
        "RequestTimerCall with an interval needs a routine.",
        (d.RU_SRB,),
        "Checked at the notification.",
        _V,
        VIOLATION,
        "static rule StorPortTimer",
    ),
    _rule(
        "IN-07",
        "a polled adapter arms its timer",
        _SP,
        "An adapter without an interrupt (level 0) is polled from the timer, which start-I/O requests.",
        (d.CFG, d.RET, d.TMR),
        "hw_start_io returning with its request outstanding and no timer is a finding; interrupts are not delivered.",
        _EV,
        WARNING,
    ),
    _rule(
        "IN-08",
        "message signalled interrupts",
        "storport",
        "hw_msi_interrupt returns TRUE for a message its adapter raised, and does not call StorPortGetMSIInfo.",
        (d.HMS, d.GMI),
        "Each message is an edge, delivered once, at DIRQL with the interrupt lock held, or with that of the message "
        "(InterruptSynchronizePerMessage). FALSE and the call are findings: nobody shares a message.",
        _EV,
    ),
)

_ERRORS = (
    _rule(
        "ER-01",
        "a specific status",
        _BOTH,
        "Parity, bus free, selection and command time-out, message reject, no device, no adapter, over- and underrun, "
        "phase failure and busy each have their own SrbStatus.",
        (d.ERR,),
        "SRB_STATUS_ERROR with ScsiStatus GOOD says nothing about what happened and is reported.",
        _V,
        WARNING,
    ),
    _rule(
        "ER-02",
        "what is logged",
        _BOTH,
        "Parity, bus free, selection and command time-out, phase failure and data overrun are always logged: by "
        "ScsiPortLogError, or under Storport by StorPortLogError or StorPortLogSystemEvent. The page of "
        "ScsiPortLogError says that selection time-outs should not be.",
        (d.ERR, d.SERR),
        "A completion with one of these and no entry for the SRB, or (a system event names none) for its unit, target or "
        "adapter while it was under way, is noted; for selection time-outs `selection_timeouts_logged`.",
        _V,
        NOTE,
    ),
    _rule(
        "ER-03",
        "the port fetches sense data",
        _SP,
        "CHECK CONDITION without AUTOSENSE_VALID for an SRB with a sense buffer: the port sends REQUEST SENSE and completes "
        "the SRB afterwards; the unit waits. A second CHECK CONDITION meanwhile gets REQUEST_SENSE_FAILED.",
        (d.SENSE, d.ROS),
        "6-byte REQUEST SENSE, 18 bytes, 2 s, ahead of the unit's other requests; the original goes up with "
        "AUTOSENSE_VALID.",
        _E,
    ),
    _rule(
        "ER-04",
        "who says AUTOSENSE_VALID",
        _BOTH,
        "REQUEST_SENSE_FAILED and AUTOSENSE_VALID come only from a miniport that declared AutoRequestSense; with "
        "DISABLE_AUTOSENSE no sense data is returned.",
        (d.SRB, d.INFERRED),
        "Checked at completion.",
        _V,
    ),
    _rule(
        "ER-05",
        "large sense buffers",
        _SP,
        "ReactOS switches auto-sense off for an SRB whose sense buffer is larger than fixed sense data (18 bytes).",
        (d.ROS,),
        "Option small_sense_only, off by default.",
        _E,
    ),
    _rule(
        "ER-06",
        "busy requests are sent again",
        _SP,
        "BUSY, or SCSI BUSY or QUEUE FULL: parked at the unit, sent again on the one-second tick, up to 20 times, then "
        "frozen and failed. Requests that bypass a frozen queue are not sent again.",
        (d.RET, d.SRB, d.ROS),
        "Option busy_retries.",
        _E,
    ),
    _rule(
        "ER-07",
        "start-I/O that is busy",
        _SP,
        "Sets BUSY, notifies RequestComplete, then NextRequest only if a request for another unit can be taken, and "
        "returns TRUE.",
        (d.RET,),
        "Without the next nothing is started until it comes; a FALSE is SP-06, a missing next in the end SP-07.",
        _EV,
    ),
    _rule(
        "ER-08",
        "abort",
        _SP,
        "The miniport looks for NextSrb by ScsiPortGetSrb; the victim ends ABORTED, an unknown one gives ABORT_FAILED. An "
        "abort of what has completed already is completed normally (ReactOS: ABORT_FAILED).",
        (d.ABT, d.SRB, d.ROS),
        "Queued requests are aborted at the port; the race with completion is decided when the abort's turn comes. "
        "Option abort_of_completed.",
        _E,
    ),
    _rule(
        "ER-09",
        "time-outs and their two diagnoses",
        _BOTH,
        "TimeOutValue is in seconds and kept by the port on a one-second tick. Two things may be missing: the next for "
        "the adapter, or the completion of a unit's oldest request.",
        (d.SRB, d.ROS),
        'Two counters, two messages: "no NextRequest within ..." (SP-07) and "not completed within ..." (ER-09).',
        _EV,
        WARNING,
    ),
    _rule(
        "ER-10",
        "escalation",
        _SP,
        "A timed-out request is aborted; if that fails or times out, the bus is reset by a direct call of hw_reset_bus. An SRB "
        "RESET_BUS comes only from above.",
        (d.SRB, d.RBF, d.ROS),
        "Option abort_first (FALSE: ReactOS, straight to the bus). A missing next resets every bus.",
        _E,
    ),
    _rule(
        "ER-11",
        "hw_reset_bus completes everything",
        _SP,
        "Everything outstanding on the path ends with BUS_RESET, then the miniport asks for the next request.",
        (d.RBR,),
        "Requests outstanding when hw_reset_bus returns are a warning, FALSE is a violation.",
        _V,
    ),
    _rule(
        "ER-12",
        "pause after a reset",
        _SP,
        "The port manages the time the bus needs to settle: no start-I/O meanwhile (ReactOS: 4 s).",
        (d.RBR, d.SPN, d.ROS),
        "Option bus_reset_hold_time. A reset of the adapter by the guest has no such pause.",
        _E,
    ),
    _rule(
        "ER-13",
        "nothing outstanding after the pause",
        _SP,
        "A request the miniport still has at the end of the reset hold is lost.",
        (d.V_S, d.BC),
        "Each is reported; by default the port takes it back with BUS_RESET (option reclaim_lost).",
        _EV,
        VIOLATION,
        "0xF1 parameter 0x1007 (SCSI Port)",
    ),
    _rule(
        "ER-14",
        "ResetDetected",
        _BOTH,
        "The port starts the pause; the miniport still has to complete what it has.",
        (d.SPN, d.STN),
        "Same check at the end of the pause as ER-13. From a wrong callback it is a warning.",
        _EV,
        WARNING,
    ),
    _rule(
        "ER-15",
        "ScsiPortCompleteRequest",
        _BOTH,
        "Completes every active SRB that matches, FF being the wildcard, the one being processed included; these are not "
        "notified individually as well. Not for Storport.",
        (d.SPC,),
        "A RequestComplete for one of them afterwards is OW-02; under Storport its use is a finding.",
        _EV,
        WARNING,
        "static rule StorPortCompleteRequest",
    ),
    _rule(
        "ER-16",
        "SrbStatus as NTSTATUS",
        _SP,
        "Time-outs become IO_TIMEOUT, bad lengths and functions INVALID_DEVICE_REQUEST, missing devices "
        "DEVICE_DOES_NOT_EXIST, overruns BUFFER_OVERFLOW, selection time-outs DEVICE_NOT_CONNECTED, the rest "
        "IO_DEVICE_ERROR.",
        (d.ROS,),
        "Given with every completion in the trace.",
        _E,
    ),
    _rule(
        "ER-17",
        "unknown functions are completed",
        _BOTH,
        "A function nobody supports ends with INVALID_REQUEST; it is not dropped.",
        (d.SRB,),
        "The port answers functions it does not know; a miniport that drops one runs into ER-09.",
        _EV,
    ),
    _rule(
        "BC-01",
        "a callback does not raise",
        _BOTH,
        "An exception in a miniport's callback is what a fault in kernel mode is: the end of the system.",
        (d.INFERRED,),
        "Contained: the callback ends, its request fails with INTERNAL_ERROR, the port lives on. This ID is this "
        "project's own.",
        _EV,
        VIOLATION,
        "bug check 0x1E or 0xD1",
    ),
)

_CONFIGURATION = (
    _rule(
        "CF-01",
        "MapBuffers TRUE",
        _SP,
        "DataBuffer is a valid system address, to be used directly.",
        (d.S2, d.PCI_S),
        "The miniport gets a MappedBuffer over the request's own bytes.",
        _E,
    ),
    _rule(
        "CF-02",
        "MapBuffers FALSE",
        _SP,
        "DataBuffer is an address that must not be dereferenced, good only for ScsiPortGetPhysicalAddress.",
        (d.S2, d.SRB, d.V_S),
        "The miniport gets an OpaqueBuffer: arithmetic works, touching is a finding with the source line and gives an "
        "exception or poison.",
        _EV,
        VIOLATION,
        "bug check 0xD1",
    ),
    _rule(
        "CF-03",
        "IO_CONTROL is always mapped",
        _BOTH,
        "The buffer of an IO_CONTROL request may always be used; so may that of a WMI request.",
        (d.SRB, d.XSRB),
        "A MappedBuffer whatever MapBuffers says.",
        _E,
    ),
    _rule(
        "CF-04",
        "which addresses can be translated",
        _SP,
        "ScsiPortGetPhysicalAddress takes an address in the data buffer of the live SRB named, or in its sense buffer; "
        "with NULL for the SRB one in the SRB extension or sense buffer of a live SRB or in the uncached extension, if "
        "NeedPhysicalAddresses was set. It gives a contiguous length; the scatter/gather list comes from repeated calls.",
        (d.GPA_S, d.PCI_S, d.SGL, d.BC),
        "Anything else is a finding and gives None.",
        _EV,
        VIOLATION,
        "0xF1 parameter 0x1006",
    ),
    _rule(
        "CF-05",
        "MaximumTransferLength",
        _SP,
        "Unset means no limit; otherwise requests are split above the miniport.",
        (d.PCI_S,),
        "Reads and writes are split, anything else too long is refused; no SRB above the limit reaches the miniport.",
        _E,
    ),
    _rule(
        "CF-06",
        "NumberOfPhysicalBreaks",
        _SP,
        "The number of breaks in the list, which is elements minus one; 0 means no scatter/gather. What the port preset may "
        "be lowered, not raised.",
        (d.PCI_S, d.ROS),
        "No SRB with more elements than breaks + 1 reaches the miniport. Option maximum_sg_list presets it.",
        _EV,
    ),
    _rule(
        "CF-07",
        "AlignmentMask",
        _BOTH,
        "0, 1, 3 or 7 under SCSI Port; up to 0x1FF (2^n - 1) under Storport.",
        (d.PCI_S, d.PCI_T),
        "A misaligned buffer goes through an aligned copy, or is refused (option misaligned). Other masks are findings.",
        _EV,
    ),
    _rule(
        "CF-08",
        "BufferAccessScsiPortControlled",
        _SP,
        "A miniport that sets it promises to reach data only through the port's routines.",
        (d.PCI_S,),
        "Any direct access is a finding, even if the buffer is mapped.",
        _V,
    ),
    _rule(
        "CF-09",
        "what is final before the uncached extension",
        _SP,
        "AutoRequestSense, Dma64BitAddresses and SrbExtensionSize are set before ScsiPortGetUncachedExtension, which is "
        "called in hw_find_adapter; Dma32BitAddresses is FALSE if Dma64BitAddresses is set.",
        (d.PCI_S,),
        "Compared after hw_find_adapter; a call from elsewhere gives None.",
        _EV,
    ),
    _rule(
        "CF-10",
        "only the assigned access ranges",
        _SP,
        "The adapter is found at the AccessRanges it was given; no scanning of the bus.",
        (d.CFG, d.PCI_S),
        "get_device_base and validate_range outside of them fail, the former with a finding. Accesses: LB-03.",
        _EV,
        VIOLATION,
    ),
    _rule(
        "CF-11",
        "the device extension is zeroed",
        _SP,
        "Before each hw_find_adapter.",
        (d.HID, d.PCI_T),
        "A fresh `extension` at each start.",
        _E,
    ),
    _rule(
        "CF-12",
        "required routines",
        _SP,
        "HwFindAdapter, HwInitialize, HwStartIo, HwInterrupt and HwResetBus must be there.",
        (d.ROS, d.BC),
        "A miniport without one is refused with a finding and a ConfigError.",
        _EV,
        VIOLATION,
        "0xF1 parameter 0x1000",
    ),
    _rule(
        "CF-13",
        "overlap, and what switches it off",
        _SP,
        "TaggedQueuing or MultipleRequestPerLu allows several requests per unit; the registry's DisableTaggedQueuing, "
        "DisableMultipleRequests, DisableDisconnects and DisableSynchronousTransfers force it off or set SRB flags.",
        (d.ROS,),
        "Four options of the same names.",
        _E,
    ),
)

SCSIPORT_RULES: tuple[Rule, ...] = (*_DISPATCH, *_QUEUE, *_OWNERSHIP, *_INTERRUPT, *_ERRORS, *_CONFIGURATION)
