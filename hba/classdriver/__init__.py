"""What Windows has above a port driver: the class driver of disks, and what the I/O, PnP and power managers send.

srbs.py          makes every SRB that comes from there
commands.py      what disk.sys knows of a SCSI command: sort key, time-out, whether it is tried again
errors.py        what a class driver does about a request that failed
driver.py        `ClassDriver`, a layer between the adapter and the port; `options.py` is its table
enumeration.py   which units there are: INQUIRY and REPORT LUNS
machine.py       whole sequences: the machine goes to sleep, a disk is taken out, resources are dealt out anew
"""
