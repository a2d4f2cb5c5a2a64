//! The vfio-user protocol: codec, server and client
