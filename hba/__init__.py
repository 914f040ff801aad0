"""hba: a PCI storage controller in Python, served to QEMU over vfio-user."""

__version__ = "0.1.0"
