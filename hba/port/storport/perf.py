"""StorPortInitializePerfOpts: which optimisations the miniport asked for (PF-01 to PF-03, ST-11, MB-18).

Source: StorPortInitializePerfOpts; PERF_CONFIGURATION_DATA. What concerns processors and messages is recorded and
shown; with one thread and one interrupt message there is nothing to redirect.
"""

from __future__ import annotations

from hba.miniport.config import (
    STOR_PERF_ADV_CONFIG_LOCALITY,
    STOR_PERF_CONCURRENT_CHANNELS,
    STOR_PERF_DPC_REDIRECTION,
    STOR_PERF_DPC_REDIRECTION_CURRENT_CPU,
    STOR_PERF_INTERRUPT_MESSAGE_RANGES,
    STOR_PERF_NO_SGL,
    STOR_PERF_OPTIMIZE_FOR_COMPLETION_DURING_STARTIO,
    PerfConfigurationData,
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
MAX_CHANNELS = 64
WINDOWS_8 = (6, 2)


def flag_names(flags: int) -> list[str]:
    """What is set in PERF_CONFIGURATION_DATA.Flags, as far as it is known here."""
    return [name for bit, name in enumerate(_NAMES) if flags & 1 << bit]


class PerfOptions:
    """What is in force. `channels` bounds how many hw_start_io may overlap (ST-11)."""

    def __init__(self, options: StorPortConfig, reports: Reports) -> None:
        self.options = options
        self.reports = reports
        self.flags = 0
        self.channels = 1
        self.no_sgl = False

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
        self.flags = flags
        self.channels = channels
        self.no_sgl = bool(flags & STOR_PERF_NO_SGL)
        return STOR_STATUS_SUCCESS
