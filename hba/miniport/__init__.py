"""What executes an SRB on the logical units: base class, default DMA miniport, examples."""
