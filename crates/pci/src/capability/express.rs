use crate::{
    Field,
    capability::{Capability, id},
};

/// Device Control (PCIe 7.5.3.4), from the capability's start.
pub(crate) const DEVICE_CONTROL: u16 = 0x08;
/// Initiate Function Level Reset: writing a one is an action, the bit reads as zero.
pub(crate) const INITIATE_RESET: u16 = 1 << 15;

const VERSION_2: u16 = 2;
const ROOT_COMPLEX_INTEGRATED_ENDPOINT: u16 = 9 << 4;

const EXTENDED_TAG: u32 = 1 << 5;
const ROLE_BASED_ERRORS: u32 = 1 << 15;
const FUNCTION_LEVEL_RESET: u32 = 1 << 28;

const RELAXED_ORDERING: u16 = 1 << 4;
const NO_SNOOP: u16 = 1 << 11;
const READ_REQUEST_512: u16 = 2 << 12;

const TIMEOUT_DISABLE: u32 = 1 << 4;
const END_END_PREFIX: u32 = 1 << 21;
const ONE_END_END_PREFIX: u32 = 1 << 22;

/// PCI Express, version 2, of a root-complex integrated endpoint with function-level reset and End-End
/// TLP prefixes, without which Linux never enables PASIDs (PCIe 7.5.3). There is no link, so the link and
/// slot registers read as zero.
#[must_use]
pub fn root_complex_endpoint() -> Capability {
    Capability::new(
        id::EXPRESS,
        0x3c,
        vec![
            Field::word(0x02, VERSION_2 | ROOT_COMPLEX_INTEGRATED_ENDPOINT),
            Field::dword(
                0x04,
                EXTENDED_TAG | ROLE_BASED_ERRORS | FUNCTION_LEVEL_RESET,
            ),
            // All but Aux power, phantom functions and the reset bit, which never sticks.
            Field::word(
                DEVICE_CONTROL,
                RELAXED_ORDERING | NO_SNOOP | READ_REQUEST_512,
            )
            .writable(0x79ff),
            Field::word(0x0a, 0).write_one_clears(0xf),
            Field::dword(0x24, TIMEOUT_DISABLE | END_END_PREFIX | ONE_END_END_PREFIX),
            // Completion timeout disable, End-End TLP prefix blocking.
            Field::word(0x28, 0).writable(0x8010),
        ],
    )
}
