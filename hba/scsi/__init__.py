"""The SCSI target: logical units, command sets, sense data."""
