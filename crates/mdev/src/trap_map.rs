use palisade_dsa::EntryPoint;
use palisade_dsa::spec::{PORTAL_BYTES, PORTALS_PER_QUEUE, REGISTERS_BYTES};
use palisade_pci::Bar;

/// Whether a client may map a range or must have each access served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// Each access is served.
    Trapped,
    /// The client may map it. Nothing of a slice is of this kind: pages of portals would let a driver send
    /// descriptors past the mediation.
    Direct,
}

/// A range of a BAR of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrapRange {
    /// The BAR.
    pub bar: Bar,
    /// Where the range starts.
    pub offset_bytes: u64,
    /// How long it is.
    pub len_bytes: u64,
    /// How it is treated.
    pub treatment: Treatment,
    /// Where a PASID can enter through it.
    pub entry_points: &'static [EntryPoint],
}

const PAGE_BYTES: u64 = 0x1000;

/// All ranges of a slice with so many queues (R18). What single registers do stands in
/// [`palisade_dsa::function::map`].
#[must_use]
pub fn trap_map(queues: u8) -> Vec<TrapRange> {
    let trapped = |bar, offset_bytes, len_bytes, entry_points| TrapRange {
        bar,
        offset_bytes,
        len_bytes,
        treatment: Treatment::Trapped,
        entry_points,
    };
    let portals = (u64::from(queues) * PORTALS_PER_QUEUE * PORTAL_BYTES).next_power_of_two();
    vec![
        trapped(
            Bar::Bar0,
            0,
            PAGE_BYTES,
            &[EntryPoint::QueueConfig, EntryPoint::CommandOperand],
        ),
        trapped(
            Bar::Bar0,
            PAGE_BYTES,
            PAGE_BYTES,
            &[EntryPoint::InterruptPermission],
        ),
        trapped(
            Bar::Bar0,
            2 * PAGE_BYTES,
            REGISTERS_BYTES - 2 * PAGE_BYTES,
            &[],
        ),
        trapped(Bar::Bar2, 0, portals, &[EntryPoint::Descriptor]),
    ]
}
