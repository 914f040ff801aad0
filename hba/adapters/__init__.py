"""What the guest sees: one package per host bus adapter."""
