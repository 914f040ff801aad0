"""The wire: the vfio-user protocol, a server engine and a small client."""
