"""The lab: a real QEMU with a real guest next to an HBA server, as one experiment.

From the ground up, one module per thing it knows:

* `process`, `progress`, `cache`: children that never outlive us, what the user sees meanwhile, what is kept;
* `debian`: the host's own package mirror, and trees unpacked from it;
* `qemu`: a QEMU that has `vfio-user-pci`;
* `kernel`, `image`, `initramfs`: what the guest boots;
* `agent`, `monitor`, `guest`, `server`: the running parts;
* `experiment`: server and guest together, in one private directory, cleaned up as one;
* `suite`, `verdict`, `launch`: what `scripts/launch` does with an experiment.
"""
