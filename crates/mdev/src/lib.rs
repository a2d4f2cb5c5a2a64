//! A tenant's mediated slice of a device
