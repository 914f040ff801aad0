"""An enclosure services device (SES-3): the device that is not a disk."""
