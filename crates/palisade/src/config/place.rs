//! Where a guest finds its functions.

use palisade_units::Bdf;

/// The device number of the first function that has no place of its own.
const FIRST_FUNCTION_DEVICE: u8 = 0x11;
/// Behind the last one; 1f is the chipset's.
const END_OF_DEVICES: u8 = 0x1f;

/// The launcher and the DMAR table speak of bus 0 only: the root bus of the guest.
pub(crate) fn is_on_root_bus(bdf: Bdf) -> bool {
    bdf.bus() == 0
}

/// The first place on the root bus that is free for a function.
pub(crate) fn first_free(is_taken: impl Fn(Bdf) -> bool) -> Option<Bdf> {
    (FIRST_FUNCTION_DEVICE..END_OF_DEVICES)
        .map(|device| Bdf::new(0, device, 0))
        .find(|bdf| !is_taken(*bdf))
}
