"""The port driver: SCSI Port and Storport behind one interface, their rules and the verifier."""
