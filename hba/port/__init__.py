"""The port driver: SCSI Port and Storport behind one interface."""
