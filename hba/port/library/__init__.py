"""What a miniport calls: the documented routines of SCSI Port and Storport, one module per family."""
