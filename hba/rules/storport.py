"""Rules of Storport (ST, LK, MB, QD, RS, PF, XS)."""

from __future__ import annotations

from hba.rules.rule import ENFORCED, NOTE, VERIFIED, VIOLATION, WARNING, Rule

_BOTH = (ENFORCED, VERIFIED)


def _rule(
    id: str,
    title: str,
    text: str,
    source: str,
    check: str,
    held: tuple[str, ...] = (ENFORCED,),
    severity: str = VIOLATION,
    counterpart: str = "",
    model: str = "storport",
) -> Rule:
    return Rule(id, title, model, text, source, check, held, severity, counterpart)


STORPORT_RULES: tuple[Rule, ...] = (
    # -- the push model, BuildIo and StartIo -------------------------------------------------------------------
    _rule(
        "ST-01",
        "push model",
        "The port issues requests up to a maximum outstanding without waiting for the miniport to say it is ready.",
        "Storport I/O Model",
        "Dispatch is gated only by depths, pauses and resets; there is no ready handshake.",
    ),
    _rule(
        "ST-02",
        "NextRequest and NextLuRequest are ignored",
        "Storport ignores the NextRequest and NextLuRequest notifications of SCSI Port.",
        "Storport Queue Management; Porting from ScsiPort to StorPort",
        "They are accepted, counted ('ignored next') and change nothing; a leftover is reported. So is a notification "
        "type Storport does not have.",
        _BOTH,
        WARNING,
        "static rule StorPortNotification2",
    ),
    _rule(
        "ST-03",
        "BuildIo, then StartIo",
        "When adapter and unit are both ready, HwStorBuildIo and then HwStorStartIo are called, in this "
        "order, per SRB.",
        "Storport Queue Management; Unsynchronized HwStorBuildIo Routine",
        "The one place that dispatches calls both in this order; the trace shows build_io and start_io of "
        "each request.",
    ),
    _rule(
        "ST-04",
        "BuildIo runs unsynchronised",
        "HwStorBuildIo runs at DISPATCH_LEVEL without locks, possibly on several processors at once: it may touch only "
        "the SRB, its extension and parts of the device extension nobody else uses, or take a lock itself.",
        "HW_BUILDIO (storport.h); Unsynchronized HwStorBuildIo Routine",
        "The attributes of the miniport and of its device extension that a BuildIo writes without a lock are compared "
        "between requests; the same attribute written by two is a race. With 'interleave' BuildIos really run beside "
        "another callback.",
        _BOTH,
    ),
    _rule(
        "ST-05",
        "what BuildIo returns",
        "TRUE: HwStorStartIo follows. FALSE: it never does, and the miniport completes the SRB itself, then or later, "
        "before its TimeOutValue.",
        "HW_BUILDIO (storport.h); SrbProcessing rule set",
        "FALSE is never started. Reported: TRUE for an SRB that is already complete; FALSE and not completed in time.",
        _BOTH,
        VIOLATION,
        "static rule StorPortBuildIo",
    ),
    _rule(
        "ST-06",
        "StartIo once, serialised",
        "HwStorStartIo is called once per request; a physical miniport's calls are serialised by the StartIo lock, at "
        "DISPATCH_LEVEL in full duplex and DIRQL in half duplex. A virtual miniport's are not locked.",
        "HW_STARTIO (storport.h)",
        "One call per instance of a request; the simulated IRQL and the locks the port holds follow the model.",
    ),
    _rule(
        "ST-07",
        "StartIo FALSE",
        "HwStorStartIo returns TRUE when the request was initiated, else FALSE. What the port does on FALSE is not "
        "documented.",
        "HW_STARTIO (storport.h)",
        "FALSE without a completion is reported; the request stays the miniport's until it completes or times out.",
        _BOTH,
        WARNING,
    ),
    _rule(
        "ST-08",
        "no waiting in StartIo",
        "In half duplex HwStorStartIo acquires no spin lock and allocates no pool. In full duplex both work, "
        "but static "
        "analysis forbids waits, stalls and allocation.",
        "HW_STARTIO (storport.h); SrbProcessing rule set",
        "Lock or pool in a half-duplex StartIo is a violation (the pool is refused); stall or pool in a "
        "full-duplex one "
        "is a warning.",
        (VERIFIED,),
        VIOLATION,
        "static rules SpNoWait, StorPortStartIo",
    ),
    _rule(
        "ST-09",
        "full duplex is expected",
        "StorSynchronizeHalfDuplex is the default and not meant for shipping drivers; HwStorFindAdapter sets "
        "SynchronizationModel to StorSynchronizeFullDuplex.",
        "Full-Duplex Mode",
        "Left at half duplex without the configuration asking for it: reported.",
        (VERIFIED,),
        WARNING,
        "static rule SpDuplex",
    ),
    _rule(
        "ST-10",
        "StartIo beside the interrupt",
        "In full duplex StartIo and the interrupt routine may run at the same time on two processors; in half duplex "
        "they exclude each other.",
        "Full-Duplex Mode",
        "An interrupt raised during StartIo is delivered after it; with 'interleave' and full duplex, in its middle.",
    ),
    _rule(
        "ST-11",
        "concurrent channels",
        "With STOR_PERF_CONCURRENT_CHANNELS and more than one channel the port takes no StartIo lock and StartIo calls "
        "may overlap, at most ConcurrentChannels of them.",
        "HW_STARTIO, PERF_CONFIGURATION_DATA (storport.h); StorPortAcquireSpinLock",
        "The number of StartIo calls under way never exceeds the channels; the lock table follows.",
    ),
    _rule(
        "ST-12",
        "completion during StartIo",
        "Completing requests that have finished from inside HwStorStartIo is allowed and recommended.",
        "Performance Tip: Completing Requests During HwStartIo",
        "Accepted; the SRB goes up after StartIo has returned, and StartIo is never entered from inside the "
        "completion.",
    ),
    _rule(
        "ST-13",
        "BUSY starts over with a new SRB",
        "On SRB_STATUS_BUSY the port drops that instance of the SRB and issues a fresh one through BuildIo "
        "and StartIo; "
        "the extension's contents are lost. BUSY must not be used once the SCSI transaction has begun.",
        "HW_STARTIO (storport.h)",
        "What is fresh is the extension (and the instance a miniport holds, which is dead): the request goes through "
        "BuildIo again. BUSY after the device moved data, or with DataTransferLength changed, is reported.",
        _BOTH,
    ),
    _rule(
        "ST-14",
        "functions that are not sent",
        "The port sends no RESET_BUS SRB (a bus reset is the HwStorResetBus callback), no TERMINATE_IO, "
        "RELEASE_RECOVERY or RECEIVE_EVENT, and ABORT_COMMAND only to a miniport with "
        "STOR_ADAPTER_FEATURE_ABORT_COMMAND.",
        "Multi-Tier Reset in Storport; STORAGE_REQUEST_BLOCK; PORT_CONFIGURATION_INFORMATION (storport.h)",
        "RESET_BUS from above becomes the callback; ABORT_COMMAND without the feature becomes a reset of the unit or "
        "ABORT_FAILED (abort_without_feature); the others end with INVALID_REQUEST.",
    ),
    # -- locks and IRQL ----------------------------------------------------------------------------------------
    _rule(
        "LK-01",
        "lock order",
        "DpcLock or StartIoLock before InterruptLock; a held lock is not acquired again; each callback may take only "
        "the locks the documentation lists for it.",
        "StorPortAcquireSpinLock; Locking rule set",
        "Every acquire is checked against the locks held, those the port holds for the callback, and the ranks. One "
        "that would deadlock is not taken. Messages' locks have no order that is documented, but two of them are not "
        "taken one way here and the other way there.",
        (VERIFIED,),
        VIOLATION,
        "static rules StorPortSpinLock, StorPortSpinLock3, StorPortSpinLock4",
    ),
    _rule(
        "LK-02",
        "LockContext",
        "LockContext is the DPC object for DpcLock and NULL otherwise.",
        "StorPortAcquireSpinLock",
        "The argument is checked at every acquire.",
        (VERIFIED,),
        VIOLATION,
        "static rule StorPortSpinLock",
    ),
    _rule(
        "LK-03",
        "every lock is released",
        "Every acquired lock is released before the callback returns; no release without an acquire.",
        "Locking rule set",
        "Checked at the end of every callback (what is left is released) and at every release.",
        (VERIFIED,),
        VIOLATION,
        "static rule StorPortSpinLock",
    ),
    _rule(
        "LK-04",
        "MSI lock",
        "The spin lock of an interrupt message is used only with InterruptSynchronizePerMessage. HwMSInterruptRoutine "
        "runs with that of its own message held, and takes those of others to synchronise with them; the interrupt "
        "lock is all of them.",
        "StorPortAcquireMSISpinLock; HW_MESSAGE_SIGNALED_INTERRUPT_ROUTINE (storport.h); Locking rule set",
        "Checked at every acquire; without that mode, or for a message that was not granted, the lock is not taken. "
        "Taking the lock of the message that is served, or the interrupt lock meanwhile, is a deadlock (LK-01).",
        (VERIFIED,),
        VIOLATION,
        "static rule StorPortMSILock",
    ),
    _rule(
        "LK-05",
        "IRQL on exit",
        "A callback returns at the IRQL it was entered at.",
        "Irql rule set",
        "The simulated IRQL is compared at the end of every callback.",
        (VERIFIED,),
        VIOLATION,
        "static rule SpChangeIrql",
    ),
    _rule(
        "LK-06",
        "StorPortSynchronizeAccess",
        "Runs a routine synchronised with the interrupt routine; it should be short.",
        "Synchronized Access within Miniport Driver Routines",
        "No interrupt is served while it runs; its time is watched like a callback's (IN-03). Called with "
        "the interrupt "
        "lock held it would deadlock: reported and refused.",
        _BOTH,
    ),
    # -- buffers and DMA ---------------------------------------------------------------------------------------
    _rule(
        "MB-01",
        "what every Storport adapter is",
        "ScatterGather, Master, NeedPhysicalAddresses, TaggedQueuing, AutoRequestSense and MultipleRequestPerLu are "
        "preset to TRUE and must not be changed; DemandMode is FALSE; HwDmaStarted and HwAdapterState are NULL.",
        "Use of Mapping Buffers in the Storport I/O Model; PORT_CONFIGURATION_INFORMATION, HW_INITIALIZATION_DATA "
        "(storport.h)",
        "Preset before hw_find_adapter, compared after it, and put right.",
        _BOTH,
    ),
    _rule(
        "MB-02",
        "MapBuffers is the adapter's",
        "MapBuffers is set once for the adapter and may be adjusted in HwStorFindAdapter only.",
        "HW_INITIALIZATION_DATA, PORT_CONFIGURATION_INFORMATION (storport.h)",
        "Read once when hw_find_adapter has returned; later changes have no effect. A value that does not exist is "
        "reported and taken as STOR_MAP_NO_BUFFERS.",
        _BOTH,
    ),
    _rule(
        "MB-03",
        "STOR_MAP_NO_BUFFERS (0)",
        "No data buffer is mapped. One document excepts IO_CONTROL and WMI, the other says no SRB type at all.",
        "Use of Mapping Buffers in the Storport I/O Model; PORT_CONFIGURATION_INFORMATION (storport.h)",
        "Data buffers are opaque except for IO_CONTROL and WMI ('strict_seed': those too); touching one is reported.",
        _BOTH,
        VIOLATION,
        "bug check 0xD1",
    ),
    _rule(
        "MB-04",
        "STOR_MAP_ALL_BUFFERS (1)",
        "Obsolete, never implemented: acts exactly as STOR_MAP_NON_READ_WRITE_BUFFERS.",
        "Use of Mapping Buffers in the Storport I/O Model; PORT_CONFIGURATION_INFORMATION (storport.h)",
        "1 becomes 2, with a note.",
        _BOTH,
        NOTE,
    ),
    _rule(
        "MB-05",
        "STOR_MAP_NON_READ_WRITE_BUFFERS (2)",
        "Data buffers are mapped unless the SRB is a read or write data transfer.",
        "Use of Mapping Buffers in the Storport I/O Model; PORT_CONFIGURATION_INFORMATION (storport.h)",
        "Reads and writes (MB-08) get an opaque buffer, everything else a mapped one; touching an opaque one is "
        "reported.",
        _BOTH,
        VIOLATION,
        "bug check 0xD1",
    ),
    _rule(
        "MB-06",
        "STOR_MAP_ALL_BUFFERS_INCLUDING_READ_WRITE (3)",
        "From Windows 8 on: everything is mapped. Mapping may fail, and DataBuffer is NULL then; a miniport that can "
        "boot must still complete reads and writes of one page.",
        "PORT_CONFIGURATION_INFORMATION, HW_INITIALIZATION_DATA (storport.h)",
        "All mapped; 'fail_mapping_every' injects failures. A read or write of at most a page that fails "
        "because of one "
        "is reported.",
        _BOTH,
    ),
    _rule(
        "MB-07",
        "what an unmapped DataBuffer is",
        "One document says NULL, another implies an address that is not valid.",
        "HW_BUILDIO (storport.h); Use of Mapping Buffers in the Storport I/O Model",
        '\'unmapped\' chooses: "opaque" (the default; traps its use) or "null".',
    ),
    _rule(
        "MB-08",
        "what counts as read or write",
        "Not documented for Storport. Taken is what Microsoft's class driver counts: READ and WRITE of 6, 10, 12 and "
        "16 bytes under EXECUTE_SCSI; so not WRITE AND VERIFY, nor READ(32) and WRITE(32).",
        "(inference: IS_SCSIOP_READWRITE in the Windows driver samples, classpnp)",
        "'rw_opcodes' lists them; 0x7F there means READ(32) and WRITE(32). The trace records how each request was "
        "classified.",
    ),
    _rule(
        "MB-09",
        "IO_CONTROL is always usable",
        "The data buffer of an IO_CONTROL SRB may always be accessed.",
        "SCSI_REQUEST_BLOCK, STORAGE_REQUEST_BLOCK (srb.h)",
        "Mapped whatever MapBuffers says (except with 'strict_seed').",
    ),
    _rule(
        "MB-10",
        "StorPortGetSystemAddress",
        "Gives access to an unmapped buffer, at most at DISPATCH_LEVEL; fails with invalid parameter (no buffer), "
        "invalid IRQL or insufficient resources.",
        "StorPortGetSystemAddress; HW_BUILDIO (storport.h)",
        "Returns a mapped view and is traced as programmed access; above DISPATCH_LEVEL, or for an SRB the miniport "
        "does not own, it is reported. 'fail_system_address_every' injects shortage.",
        _BOTH,
    ),
    _rule(
        "MB-11",
        "scatter/gather list",
        "StorPortGetScatterGatherList's list is valid until completion, read-only, and not freed by the miniport.",
        "StorPortGetScatterGatherList; Access to Scatter/Gather Lists in the Storport I/O Model",
        "The list is an immutable copy; writing it, and any use after the completion, is reported.",
        _BOTH,
    ),
    _rule(
        "MB-12",
        "StorPortGetPhysicalAddress",
        "The SRB must be given when the address lies in its data or sense buffer, else it is NULL; an address that "
        "cannot be converted gives NULL.",
        "StorPortGetPhysicalAddress; STORAGE_REQUEST_BLOCK (MiniportContext)",
        "With an SRB the address must lie in the data or sense buffer of that SRB, which is live; without one in the "
        "extension of a live SRB (or a place inside) or in the uncached extension. Anything else gives None. "
        "Device and logical unit extensions are documented as reachable nowhere, so they are no address here.",
        _BOTH,
        VIOLATION,
        "(none; SCSI Port: 0xF1 parameter 0x1006)",
    ),
    _rule(
        "MB-13",
        "DMA stays inside",
        "The device moves data only within the buffers of requests it has, in their direction, and not after their "
        "completion.",
        "(follows from StorPortGetScatterGatherList and StorPortNotification)",
        "Every DMA of the chip is checked against the windows of the requests the miniport owns: data, SRB extension, "
        "sense buffer; and the uncached extension. Direction (of data) and lifetime too.",
        (VERIFIED,),
        VIOLATION,
        "(memory corruption; with DMA remapping, bug check 0xE6)",
        "both",
    ),
    _rule(
        "MB-14",
        "limits must be set",
        "NumberOfPhysicalBreaks is the largest number of physical pages of a transfer, 0x11 unless set (elements, or "
        "breaks between them, in other places); it and MaximumTransferLength must be set in HwStorFindAdapter.",
        "PORT_CONFIGURATION_INFORMATION, MINIPORT_DUMP_POINTERS (storport.h); SrbProcessing rule set",
        "Transfers above the limits are split; option physical_breaks says what is counted. A limit that was not set "
        "is reported.",
        _BOTH,
        WARNING,
        "static rule StorPortFindAdapter",
    ),
    _rule(
        "MB-15",
        "many requests need wide addresses",
        "Dma64BitAddresses is preset to SCSI_DMA64_SYSTEM_SUPPORTED; a miniport answers with a value of its own, or 0 "
        "for 32 bits. More than 1000 adapter I/Os need one of the full 64-bit values.",
        "PORT_CONFIGURATION_INFORMATION (storport.h)",
        "Checked after hw_find_adapter; MaxNumberOfIO is set back to 1000. That nothing was answered is logged.",
        _BOTH,
    ),
    _rule(
        "MB-16",
        "calls of hw_find_adapter only",
        "StorPortGetUncachedExtension and StorPortFreeDeviceBase only from HwStorFindAdapter, for a bus master, with "
        "SrbExtensionSize set first; StorPortGetDeviceBase only for assigned addresses.",
        "Storport Verification",
        "The context and arguments of each call; a call that breaks the rule gets nothing.",
        _BOTH,
        VIOLATION,
        "0xF1 parameter 0x2002 (uncached extension), 0x2003 (device base)",
    ),
    _rule(
        "MB-17",
        "the device extension is kept",
        "The device extension is zeroed when it is allocated and survives stop and restart.",
        "HW_INITIALIZATION_DATA, PORT_CONFIGURATION_INFORMATION (storport.h)",
        "self.extension of the miniport is made once and never replaced.",
    ),
    _rule(
        "MB-18",
        "STOR_PERF_NO_SGL",
        "With this flag (version 5) the port builds no scatter/gather lists.",
        "PERF_CONFIGURATION_DATA (storport.h)",
        "get_scatter_gather_list returns None.",
    ),
    # -- queue depth, pause, busy ------------------------------------------------------------------------------
    _rule(
        "QD-01",
        "depth of a unit",
        "Requests beyond the unit's depth wait in its queue; at most 255 per unit without extended SRBs.",
        "Storport Queue Management; PORT_CONFIGURATION_INFORMATION (storport.h)",
        "Outstanding requests of a unit never exceed its depth; the rest waits first in, first out.",
    ),
    _rule(
        "QD-02",
        "initial and largest depth",
        "InitialLunQueueDepth is 20 (250 for a virtual miniport), MaxIOsPerLun 255; MaxIOsPerLun is at most "
        "MaxNumberOfIO, and above 255 only with extended SRBs.",
        "PORT_CONFIGURATION_INFORMATION (storport.h)",
        "The defaults; what does not fit is reported and cut.",
        _BOTH,
        WARNING,
    ),
    _rule(
        "QD-03",
        "depth of the adapter",
        "At most MaxNumberOfIO requests of an adapter are outstanding, 1000 unless set.",
        "PORT_CONFIGURATION_INFORMATION (storport.h); Registry Entries for StorPort Miniport Drivers",
        "Outstanding requests of the adapter never exceed it; units take turns for a free place.",
    ),
    _rule(
        "QD-04",
        "StorPortSetDeviceQueueDepth",
        "The depth is above 0; the call is made at the unit's first INQUIRY or later. Returns whether it worked.",
        "StorPortSetDeviceQueueDepth",
        "Depth 0 or above MaxIOsPerLun, or a unit nobody has inquired yet: FALSE and a note.",
        _BOTH,
        NOTE,
    ),
    _rule(
        "QD-05",
        "pause and resume",
        "StorPortPause holds all requests of the adapter for some seconds or until StorPortResume; PauseDevice and "
        "ResumeDevice those of a unit.",
        "StorPortPause; StorPortPauseDevice",
        "A gate with a timer on the port's clock.",
    ),
    _rule(
        "QD-06",
        "busy and ready",
        "StorPortBusy(n) holds the adapter until n requests have completed, or all when fewer are outstanding; "
        "StorPortDeviceBusy a unit. Ready and DeviceReady end it.",
        "StorPortBusy; StorPortDeviceBusy; Storport Queue Management",
        "A gate with a countdown; with nothing outstanding it opens at once.",
    ),
    _rule(
        "QD-07",
        "nothing is sent while held",
        "While an adapter or unit is paused or busy the port sends nothing to it.",
        "Storport Queue Management",
        "Every dispatch looks at the gates, also between BuildIo and StartIo, and also that of POWER requests, of "
        "requests that bypass a lock and of the one that powers a unit up; aborts and resets, by which the port "
        "recovers, pass (inferred). A queue held for too long is reported by its gate.",
        (ENFORCED,),
        WARNING,
    ),
    _rule(
        "QD-08",
        "busy requests are retried",
        "After SRB_STATUS_BUSY the unit rests for BusyPauseTime (250 ms) and the request is tried again, "
        "BusyRetryCount (20) times; another document says without end.",
        "Registry Entries for StorPort Miniport Drivers (since October 2021; 10 before); Storport Queue Management",
        "'busy_retry' (20 or \"inf\") and 'busy_pause_time'; then BUSY goes up.",
    ),
    _rule(
        "QD-09",
        "QUEUE FULL",
        "After the SCSI status QUEUE FULL the unit is held until QueueFullWaitIoPercentage (25) per cent of its "
        "outstanding requests have completed.",
        "Registry Entries for StorPort Miniport Drivers",
        "A gate with a countdown of at least one; the request is tried again then.",
    ),
    _rule(
        "QD-10",
        "link down, link up",
        "LinkDown holds the adapter, LinkUp lets it go and is legal only after LinkDown; after LinkDownTimeoutValue "
        "(30 s, at most 600) I/O to the miniport is restarted (registry entries), or requests fail.",
        "StorPortNotification; Registry Entries for StorPort Miniport Drivers; Device Status for "
        "High-Performance Buses "
        "and Adapters",
        "A gate with a timer, and 'link_down_expired' for what follows: \"restart\" (LINK_DOWN from the miniport is "
        'retried as BUSY is) or "fail"; LinkUp without LinkDown is reported.',
        _BOTH,
    ),
    _rule(
        "QD-11",
        "time-out, latency and sense limits",
        "IoTimeoutValue is the time-out of requests without one; IoLatencyCap holds new requests, whatever their unit, "
        "while one is older than it; TotalSenseDataBytes (18 to 255) bounds the sense data.",
        "Registry Entries for StorPort Miniport Drivers",
        "'io_timeout_value', 'io_latency_cap', 'total_sense_data_bytes'.",
    ),
    _rule(
        "QD-12",
        "StorPortUpdatePortConfigMaxIOInfo",
        "Only from HwStorInitialize or the passive initialisation routine.",
        "StorPortUpdatePortConfigMaxIOInfo",
        "Elsewhere it is refused and reported.",
        _BOTH,
    ),
    # -- resets, time-outs, power, removal ---------------------------------------------------------------------
    _rule(
        "RS-01",
        "the reset ladder",
        "RESET_LOGICAL_UNIT, then RESET_DEVICE, then HwStorResetBus; each step only after the one before has failed.",
        "Multi-Tier Reset in Storport",
        "A time-out starts the ladder; a step fails by its status or after 'reset_timeout', which is reported.",
        _BOTH,
        WARNING,
    ),
    _rule(
        "RS-02",
        "a reset completes its scope",
        "On a reset of a unit or target the miniport completes the active requests there.",
        "SCSI_REQUEST_BLOCK; HW_BUILDIO (storport.h)",
        "Nothing of the scope is outstanding when the reset request completes; what is, is reported and taken back.",
        _BOTH,
    ),
    _rule(
        "RS-03",
        "HwStorResetBus",
        "The port pauses all units and takes the StartIo lock; the miniport completes what it had started with "
        "BUS_RESET and returns TRUE. BusResetHoldTime passes before the next request.",
        "HW_RESET_BUS (storport.h)",
        "No StartIo during it and the hold; leftovers and FALSE are reported.",
        _BOTH,
    ),
    _rule(
        "RS-04",
        "built is not started",
        "HwStorResetBus completes requests HwStorStartIo received, not those that were only built.",
        "HW_RESET_BUS (storport.h)",
        "Built requests survive the reset and are started after it; completing one in hw_reset_bus is reported.",
        _BOTH,
    ),
    _rule(
        "RS-05",
        "declared control types",
        "HwStorAdapterControl and HwStorUnitControl are called only for the types the miniport declared, and must not "
        "write beyond MaxControlType - 1.",
        "HW_ADAPTER_CONTROL, SCSI_ADAPTER_CONTROL_TYPE (storport.h)",
        "Types are asked for once, after HwInitialize, of 30 adapter types (SCSI Port: 5) and 15 unit types; a write "
        "beyond the list is contained and reported.",
        _BOTH,
        model="both",
    ),
    _rule(
        "RS-06",
        "ScsiStopAdapter",
        "Before it nothing is outstanding and FLUSH was sent; after it the adapter is quiet. Restart redoes "
        "the work of "
        "Initialize, or the port calls FindAdapter and Initialize. A miniport with power control gets no POWER SRB.",
        "HW_ADAPTER_CONTROL, SCSI_ADAPTER_CONTROL_TYPE (storport.h)",
        "A stop holds the queues, waits for what is outstanding, sends FLUSH (and SHUTDOWN where the machine goes "
        "down; both only with CachesData, Q-16) and waits for it, then calls ScsiStopAdapter; an interrupt after that "
        "is reported. 'hba inject' and a server that ends do it.",
        _BOTH,
        model="both",
    ),
    _rule(
        "RS-07",
        "running and boot configuration",
        "ScsiSetRunningConfig comes before ScsiRestartAdapter, with the interrupt not yet connected; ScsiSetBootConfig "
        "after ScsiStopAdapter.",
        "HW_ADAPTER_CONTROL, SCSI_ADAPTER_CONTROL_TYPE (storport.h)",
        "The order is kept; no interrupt is delivered before the restart.",
        model="both",
    ),
    _rule(
        "RS-08",
        "unit control",
        "Start, power, remove and surprise removal of a unit, for declared types only; ScsiUnitPower replaces POWER "
        "SRBs.",
        "HW_UNIT_CONTROL, SCSI_PNP_REQUEST_BLOCK (storport.h)",
        "hw_unit_control is called for declared types; POWER goes there when ScsiUnitPower is declared. Without "
        "ScsiUnitRemove or ScsiUnitSurpriseRemoval a removal is a PNP SRB.",
    ),
    _rule(
        "RS-09",
        "NOT_POWERED and LINK_DOWN",
        "A NO_KEEP_AWAKE request for a powered-down unit ends with NOT_POWERED; with the link down for good requests "
        "end with LINK_DOWN.",
        "STORAGE_REQUEST_BLOCK",
        "NOT_POWERED is the port's answer, and other requests power the unit up when nothing else holds them; "
        "LINK_DOWN with 'link_down_expired' = \"fail\".",
    ),
    _rule(
        "RS-10",
        "WMI events",
        "A WMIEvent of more than 128 bytes is ignored.",
        "StorPortNotification",
        "Dropped, with a note.",
        _BOTH,
        NOTE,
    ),
    # -- performance options, MSI, extended SRBs ---------------------------------------------------------------
    _rule(
        "PF-01",
        "StorPortInitializePerfOpts",
        "Only from HwStorInitialize or the passive initialisation routine; unknown flags or another context are "
        "unsuccessful, NULL is an invalid parameter.",
        "StorPortInitializePerfOpts",
        "Context, flags and pointer of each call.",
        _BOTH,
        VIOLATION,
        "static rules StorPortPerfOpts, StorPortEnablePassive",
    ),
    _rule(
        "PF-02",
        "flags that need others",
        "MESSAGE_RANGES, COMPLETION_DURING_STARTIO and REDIRECTION_CURRENT_CPU need DPC_REDIRECTION; "
        "ADV_CONFIG_LOCALITY needs MESSAGE_RANGES as well. Each came with a version of the structure.",
        "PERF_CONFIGURATION_DATA (storport.h)",
        "Checked when options are set; a set that does not fit is refused.",
        _BOTH,
    ),
    _rule(
        "PF-03",
        "concurrent channels from Windows 8",
        "STOR_PERF_CONCURRENT_CHANNELS exists from Windows 8 on.",
        "PERF_CONFIGURATION_DATA (storport.h)",
        "With 'windows_version' below 6.2 the flag is not supported, and asking for it is reported.",
        _BOTH,
    ),
    _rule(
        "PF-04",
        "DPCs",
        "The interrupt routine defers work with StorPortIssueDpc; the DPC runs very soon after it.",
        "HW_INTERRUPT (storport.h)",
        "DPCs run as soon as the interrupt routine has returned, in the order they were issued, before completions go "
        "up. One that is queued is not queued again.",
    ),
    _rule(
        "PF-05",
        "redirection messages",
        "FirstRedirectionMessageNumber to LastRedirectionMessageNumber are messages the adapter has; with "
        "ADV_CONFIG_LOCALITY MessageTargets has room for one GROUP_AFFINITY for each.",
        "PERF_CONFIGURATION_DATA (storport.h)",
        "Checked when STOR_PERF_INTERRUPT_MESSAGE_RANGES is set; a range beyond the messages granted "
        "('message_number_limit') or too little room is refused (the status is inferred: STOR_STATUS_UNSUCCESSFUL).",
        _BOTH,
        VIOLATION,
        "(memory corruption: Storport fills the array)",
    ),
    _rule(
        "PF-06",
        "StorPortGetStartIoPerfParams",
        "The SRB is one Storport has sent, StartIoPerfParams is not NULL and its Size is set; else "
        "STOR_STATUS_INVALID_PARAMETER.",
        "StorPortGetStartIoPerfParams; STARTIO_PERFORMANCE_PARAMETERS (storport.h)",
        "Arguments of each call. Two hw_start_io that run at once have different channel numbers; the message is that "
        "of the processor the request came from ('processors').",
        _BOTH,
    ),
    _rule(
        "XS-01",
        "extended SRB",
        "Function carries a marker and SrbFunction the code; Length is the offset of the signature, SrbLength covers "
        "header, address and extended data; the address at AddressOffset, extended data at SrbExDataOffset; the SRB "
        "extension is MiniportContext. Only for miniports that set SrbType.",
        "STORAGE_REQUEST_BLOCK, SRBEX_DATA_* (srb.h); HW_STARTIO (storport.h)",
        "Delivered when config.srb_type asks for it, with SRBEX_DATA_SCSI_CDB16, _CDB32 or _CDB_VAR by the length of "
        "the CDB, SRBEX_DATA_WMI, _POWER or _PNP; a member of the old structure that is read or written is reported.",
        _BOTH,
    ),
    _rule(
        "XS-02",
        "RESET_DEVICE is 0x13",
        "One page prints 0x16 for SRB_FUNCTION_RESET_DEVICE; the header and the SRB page say 0x13 (0x16 is "
        "REMOVE_DEVICE).",
        "STORAGE_REQUEST_BLOCK; SCSI_REQUEST_BLOCK (srb.h)",
        "0x13 is sent.",
    ),
)
