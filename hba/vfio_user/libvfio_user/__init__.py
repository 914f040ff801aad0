"""The engine `libvfio-user`: the wire is the system's libvfio-user.so.0, in C, bound here by ctypes.

* `binding`    the library's functions, typed; nothing of the library is called elsewhere
* `find`       where the library is, and whether it can be used
* `probe`      tells in a process of its own which ABI it has
* `context`    one device in the library: regions, callbacks
* `session`    one client: what its messages make the library do, and when
* `handover`   a client that we have accepted becomes the library's
* `exchange`   DMA by message beside the library
* `duplicate`  guest memory the library has mapped, mapped once more for us
* `engine`     `hba.vfio_user.device.Engine`
"""
