"""A minimal HBA, registered in the tests alone: a few registers, one ring. What a second adapter has to bring is here.

Its interface:

    RING       bus address of the ring
    SIZE       its entries; writing it sets the ring up, with all counts at 0 (no entries: there is none)
    DOORBELL   how many entries have been made ready so far; the adapter looks at the ring
    DONE       how many have been done so far, in whatever order

An entry (`structures.ENTRY`) is the guest's until it rings, then the adapter's until its state is DONE. One message
interrupt follows a batch of them.
"""
