"""Running adapters: one process each.

* `assemble`: configuration -> the layers of one adapter, wired;
* `process`: one adapter in this process, from start to clean end;
* `supervisor`: a process for each of several adapters;
* `signals`: SIGTERM and SIGINT as events of the loop;
* `report`: what `hba serve` prints.
"""
