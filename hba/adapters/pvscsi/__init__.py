"""VMware PVSCSI (15ad:07c0)."""
