"""hba: a PCI storage controller in Python, served to QEMU over vfio-user."""

from hba import compiled as _compiled

__version__ = "0.1.0"

_compiled.use()  # before anything of it is imported
