"""The verifier at the port's boundaries: what the miniport does with what it was given (`hba.rules`)."""
