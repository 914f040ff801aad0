"""The SCSI Port model: one request at a time until the miniport asks for the next (pull)."""
