use palisade_units::GuestPasid;

/// A word that its owner attaches to a PASID. The authority passes it on and does not read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Data(pub u64);

/// What is kept beside the record of a PASID that a guest has named or that is in a table. All zeros in
/// one that is free.
#[derive(Default, zerocopy::FromZeros)]
pub(crate) struct Label {
    /// The guest's number and one, or 0 for none.
    guest: u32,
    /// A function in whose table it is, where `entries` is not 0.
    pub(crate) place: u16,
    /// How often it is there. It may be elsewhere too, see [`Bindings`](crate::bindings::Bindings).
    pub(crate) entries: u16,
}

impl Label {
    /// The guest's name for it. Once the PASID is freed this is a label only: the pair is gone.
    pub(crate) fn guest(&self) -> Option<GuestPasid> {
        GuestPasid::new(self.guest.checked_sub(1)?).ok()
    }

    pub(crate) fn set_guest(&mut self, guest: Option<GuestPasid>) {
        self.guest = guest.map_or(0, |guest| guest.get() + 1);
    }
}
