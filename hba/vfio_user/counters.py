"""What passed over the wire since the engine started, over all connections: the numbers of `hba show`."""

from __future__ import annotations

from hba.vfio_user.protocol import COMMAND_NAMES, NO_REPLY, Header


class Counters:
    """Plain attributes, counted up where things happen."""

    def __init__(self) -> None:
        self.requests: dict[int, int] = dict.fromkeys(COMMAND_NAMES, 0)  # from the client, by command
        self.unknown_requests = 0
        self.posted = 0  # requests that wanted no reply
        self.errors = 0  # requests refused, connections ended for a reason
        self.dma_reads = 0  # messages of ours
        self.dma_writes = 0
        self.dma_faults = 0
        self.deferred = 0  # requests that arrived during a DMA by message and had to wait for its end
        self.bytes_received = 0
        self.bytes_sent = 0
        self.connections = 0
        self.refused = 0  # second clients
        self.last_error: str | None = None

    def count(self, header: Header) -> None:
        """A message from the client."""
        _, command, _, flags, _ = header
        if command in self.requests:
            self.requests[command] += 1
        else:
            self.unknown_requests += 1
        if flags & NO_REPLY:
            self.posted += 1

    def snapshot(self) -> dict[str, object]:
        numbers: dict[str, object] = dict(vars(self))
        numbers["requests"] = {COMMAND_NAMES[command]: count for command, count in self.requests.items() if count}
        return numbers
