"""StorPortInitializePerfOpts: which optimisations the miniport asked for (PF-01 to PF-03, ST-11, MB-18).

Source: StorPortInitializePerfOpts; PERF_CONFIGURATION_DATA; StorPortGetStartIoPerfParams. Requests come from the
processors of an emulated host in turn, which chooses the channel a request is started in and the message its end had
best be told with. Everything runs in one thread: redirection decides numbers, not where code runs.
"""

from __future__ import annotations

from typing import Final

from hba.miniport.config import (
    STOR_PERF_ADV_CONFIG_LOCALITY,
    STOR_PERF_CONCURRENT_CHANNELS,
    STOR_PERF_DPC_REDIRECTION,
    STOR_PERF_DPC_REDIRECTION_CURRENT_CPU,
    STOR_PERF_INTERRUPT_MESSAGE_RANGES,
    STOR_PERF_NO_SGL,
    STOR_PERF_OPTIMIZE_FOR_COMPLETION_DURING_STARTIO,
    GroupAffinity,
    PerfConfigurationData,
    StartIoPerformanceParameters,
)
from hba.miniport.services import STOR_STATUS_INVALID_PARAMETER, STOR_STATUS_SUCCESS, STOR_STATUS_UNSUCCESSFUL
from hba.port.context import CALLBACK_NAMES, INITIALIZE, PASSIVE_INITIALIZE
from hba.port.reports import Reports
from hba.port.storport.config import StorPortConfig

# Flags that came with each version of the structure; a version has those of the ones before it.
BY_VERSION = {
    2: STOR_PERF_DPC_REDIRECTION | STOR_PERF_CONCURRENT_CHANNELS | STOR_PERF_INTERRUPT_MESSAGE_RANGES,
    3: STOR_PERF_ADV_CONFIG_LOCALITY | STOR_PERF_OPTIMIZE_FOR_COMPLETION_DURING_STARTIO,
    4: STOR_PERF_DPC_REDIRECTION_CURRENT_CPU,
    5: STOR_PERF_NO_SGL,
}
# PF-02: a flag needs these as well.
NEEDS = {
    STOR_PERF_INTERRUPT_MESSAGE_RANGES: STOR_PERF_DPC_REDIRECTION,
    STOR_PERF_OPTIMIZE_FOR_COMPLETION_DURING_STARTIO: STOR_PERF_DPC_REDIRECTION,
    STOR_PERF_DPC_REDIRECTION_CURRENT_CPU: STOR_PERF_DPC_REDIRECTION,
    STOR_PERF_ADV_CONFIG_LOCALITY: STOR_PERF_INTERRUPT_MESSAGE_RANGES | STOR_PERF_DPC_REDIRECTION,
}
_NAMES = (
    "STOR_PERF_DPC_REDIRECTION",
    "STOR_PERF_CONCURRENT_CHANNELS",
    "STOR_PERF_INTERRUPT_MESSAGE_RANGES",
    "STOR_PERF_ADV_CONFIG_LOCALITY",
    "STOR_PERF_OPTIMIZE_FOR_COMPLETION_DURING_STARTIO",
    "STOR_PERF_DPC_REDIRECTION_CURRENT_CPU",
    "STOR_PERF_NO_SGL",
)  # of the bits, from the lowest
MAX_CHANNELS: Final = 64
START_IO_PARAMETERS_SIZE: Final = 0x10  # sizeof(STARTIO_PERFORMANCE_PARAMETERS)
WINDOWS_8 = (6, 2)


def flag_names(flags: int) -> list[str]:
    """What is set in PERF_CONFIGURATION_DATA.Flags, as far as it is known here."""
    return [name for bit, name in enumerate(_NAMES) if flags & 1 << bit]


class PerfOptions:
    """What is in force. `channels` bounds how many hw_start_io may overlap (ST-11)."""

    def __init__(self, options: StorPortConfig, reports: Reports) -> None:
        self.options = options
        self.reports = reports
        self.messages: int  # granted (`grant`)
        self.first_message: int  # of those in use
        self.message_span: int
        self._base = 0  # processor of the outermost hw_start_io that runs
        self.flags = 0
        self.channels = 1
        self.no_sgl = False

    def grant(self, messages: int) -> None:
        """hw_find_adapter has asked for messages, and gets so many."""
        self.messages, self.first_message, self.message_span = messages, 0, max(1, messages)

    def supported(self, version: int) -> int:
        flags = 0
        for since, added in BY_VERSION.items():
            if version >= since:
                flags |= added
        if self.options.windows_version < WINDOWS_8:
            flags &= ~STOR_PERF_CONCURRENT_CHANNELS  # PF-03
        return flags

    def initialize(self, query: bool, config: PerfConfigurationData | None) -> int:
        """STOR_STATUS_*."""
        reports = self.reports
        if config is None:
            reports.offence("PF-01", "StorPortInitializePerfOpts with PerfConfigData NULL")
            return STOR_STATUS_INVALID_PARAMETER
        if reports.callback not in (INITIALIZE, PASSIVE_INITIALIZE):
            reports.offence("PF-01", f"StorPortInitializePerfOpts from {CALLBACK_NAMES[reports.callback]}")
            return STOR_STATUS_UNSUCCESSFUL
        if config.version < 2 or config.version > max(BY_VERSION):
            reports.offence("PF-02", f"PERF_CONFIGURATION_DATA version {config.version}; 2 to {max(BY_VERSION)} exist")
            return STOR_STATUS_UNSUCCESSFUL
        supported = self.supported(config.version)
        if query:
            config.flags = supported
            config.concurrent_channels = self.options.concurrent_channels or MAX_CHANNELS
            return STOR_STATUS_SUCCESS
        return self._set(config, supported)

    def _set(self, config: PerfConfigurationData, supported: int) -> int:
        reports, flags = self.reports, config.flags
        unknown = flags & ~supported
        if unknown:
            rule = "PF-03" if unknown == STOR_PERF_CONCURRENT_CHANNELS else "PF-01"
            reports.offence(rule, f"flags {unknown:#x} are not supported (version {config.version}: {supported:#x})")
            return STOR_STATUS_UNSUCCESSFUL
        for flag, needed in NEEDS.items():
            if flags & flag and flags & needed != needed:
                reports.offence("PF-02", f"flag {flag:#x} without {needed & ~flags:#x}, which it needs")
                return STOR_STATUS_UNSUCCESSFUL
        channels = 1
        if flags & STOR_PERF_CONCURRENT_CHANNELS:
            if config.concurrent_channels <= 0:
                reports.offence("PF-02", "STOR_PERF_CONCURRENT_CHANNELS with ConcurrentChannels 0")
                return STOR_STATUS_UNSUCCESSFUL
            channels = min(config.concurrent_channels, self.options.concurrent_channels or MAX_CHANNELS)
            config.concurrent_channels = channels
        if flags & STOR_PERF_INTERRUPT_MESSAGE_RANGES and not self._redirect(config):
            return STOR_STATUS_UNSUCCESSFUL
        self.flags = flags
        self.channels = channels
        self.no_sgl = bool(flags & STOR_PERF_NO_SGL)
        return STOR_STATUS_SUCCESS

    def _redirect(self, config: PerfConfigurationData) -> bool:
        """PF-05: the messages that are redirected, and with ADV_CONFIG_LOCALITY whom each is for."""
        first, last = config.first_redirection_message_number, config.last_redirection_message_number
        if not 0 <= first <= last < self.messages:
            granted = f"{self.messages} messages are granted" if self.messages else "no message is granted"
            self.reports.offence("PF-05", f"redirection messages {first} to {last}, but {granted}")
            return False
        span = last - first + 1
        if config.flags & STOR_PERF_ADV_CONFIG_LOCALITY:
            if len(config.message_targets) < span:
                self.reports.offence(
                    "PF-05", f"MessageTargets has room for {len(config.message_targets)} of {span} redirection messages"
                )
                return False
            config.device_node = 0
            for index in range(span):
                config.message_targets[index] = self._target(index, span)
        self.first_message, self.message_span = first, span
        return True

    def _target(self, index: int, span: int) -> GroupAffinity:
        """The processors whose requests end with a message; one that is nobody's first choice goes to one of them."""
        processors = self.options.processors
        mine = sum(1 << processor for processor in range(processors) if processor % span == index)
        return GroupAffinity(mine or 1 << index % processors)

    def start_io_params(self, number: int, beside: int, params: StartIoPerformanceParameters | None) -> int:
        """StorPortGetStartIoPerfParams of request `number`, while `beside` other hw_start_io run."""
        if params is None or params.size < START_IO_PARAMETERS_SIZE:
            size = "NULL" if params is None else f"Size {params.size}, which is too small"
            self.reports.offence("PF-06", f"StorPortGetStartIoPerfParams with StartIoPerfParams of {size}")
            return STOR_STATUS_INVALID_PARAMETER
        if not beside:
            self._base = number % self.options.processors
        processor = self._base + beside  # so two that run at once are in two channels
        params.channel_number = processor % self.channels
        params.message_number = self.first_message + processor % self.message_span if self.messages else 0
        return STOR_STATUS_SUCCESS
