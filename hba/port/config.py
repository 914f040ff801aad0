"""Options both port models have. Each model's own are in its folder and include these."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

MOST: Final = 1_000_000  # of anything that is counted, or waited for in seconds or milliseconds: beyond it is a slip
Count = Annotated[int, msgspec.Meta(ge=0, le=MOST)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=MOST)]


class PortConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Defaults are what Microsoft's documents say; where there is no document, the comment says what they come from."""

    # Seconds for requests that come without a TimeOutValue (guests' adapters have no such field). 60 is what Windows
    # sets up for its disk class driver; it is above the 30 s after which a Linux guest aborts by itself.
    default_timeout: Positive = 60
    # Act as the class driver for adapters whose guests know nothing of SRB queues: release a queue that an error froze
    # as soon as the failed request went up. False: a frozen queue waits for RELEASE_QUEUE, as below a real one.
    auto_release: bool = True
    # What a miniport gets that touches a buffer it may not touch: an exception, or 0xDB bytes.
    forbidden_access: Literal["exception", "poison"] = "exception"
    # Requests the miniport still owes at the end of a reset (ER-13) are taken back, so that no guest hangs on them.
    # False: they stay lost, as on Windows.
    reclaim_lost: bool = True
    # Whether a selection time-out has to be logged (ER-02): "Error Handling in ... Miniport Drivers" says always, the
    # page of ScsiPortLogError says it should not be. False: either way is right.
    selection_timeouts_logged: bool = True
    # Seconds after which a queue that stands still is diagnosed (Q-09, SP-07); the verifier reports each once.
    stuck_after: Positive = 10
    # Interrupts served in a row with the line still up before it is called a storm and left alone (IN-02).
    interrupt_storm_limit: Positive = 16
    # Every n-th interrupt, call hw_interrupt once more without a cause, as a device sharing the line would (IN-01).
    # 0: never.
    shared_interrupt_every: Count = 0
    # Limits of a single transfer are kept by splitting above the miniport (CF-05, CF-06, MB-14); buffers that miss
    # the alignment mask (CF-07) are copied to an aligned one, or refused.
    misaligned: Literal["bounce", "reject"] = "bounce"
