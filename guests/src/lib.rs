//! Real guests under QEMU: set-up and scenarios
