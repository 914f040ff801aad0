"""HwDeviceExtension and logical unit extensions: what a miniport keeps there as attributes (CF-11, MB-17)."""

from __future__ import annotations


class Extension:
    """Zeroed by the port, so: without any attribute."""
