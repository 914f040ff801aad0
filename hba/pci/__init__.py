"""One PCI function: config space, BARs of declared registers, interrupts, guest memory."""
