"""What every adapter has whose requests and completions lie in rings in the guest's memory.

adapter      the two ways of a request, from the ring to the port and back; life and reset
rings        what a type says of the rings its driver has set up
access       those rings, and whether their memory can be used now; who is told when it cannot
turn         how much is taken in one turn of the event loop
inflight     requests that were taken and are not answered
completions  what is answered and not on the ring yet
moderation   when the ring is looked at without a kick, when completions are announced
hotplug      what the driver is to be told of units that come and go
watcher      what an instrument can see here; `trace` is one
shapes       what all of them say of themselves
"""
