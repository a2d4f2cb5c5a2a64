//! What the operating system does in configuration space before a driver has its device.

use crate::{error::DriverError, link::Link};
use palisade_pci::capability::extended_id;
use palisade_units::Bdf;
use palisade_vfio_user::Region;

const VENDOR: u64 = 0x00;
const COMMAND: u64 = 0x04;
const MEMORY_AND_BUS_MASTER: u16 = 0x6;
/// Where the list of extended capabilities starts (PCIe 7.6.3).
const EXTENDED: u16 = 0x100;
/// More than fit into the space: a list that is longer runs in a circle.
const MOST_CAPABILITIES: usize = 960;

const PASID_CONTROL: u16 = 6;
const ATS_CONTROL: u16 = 6;
const PRI_CONTROL: u16 = 4;
const PRI_CAPACITY: u16 = 8;
const PRI_ALLOCATION: u16 = 12;
const ENABLE: u16 = 1;
const ATS_ENABLE: u16 = 1 << 15;
/// How many page requests may be outstanding, as Linux asks for them.
const PAGE_REQUESTS: u32 = 32;

/// Checks that the function is the device that the driver is for, and turns on memory, bus mastering, PASID, page requests
/// and ATS, in this order: PASID cannot be changed while ATS is on (PCIe 7.8.8.3).
pub(super) fn enable(link: &mut Link, bdf: Bdf, ids: (u16, u16)) -> Result<(), DriverError> {
    let unsupported = |lacking: &str| DriverError::Unsupported {
        what: bdf.to_string(),
        lacking: lacking.to_owned(),
    };
    let found = link.read_u32(Region::Config, VENDOR)?;
    if found != (u32::from(ids.1) << 16) | u32::from(ids.0) {
        return Err(unsupported(&format!(
            "the ids of the accelerator: it has {found:#010x}"
        )));
    }
    write_u16(link, COMMAND, MEMORY_AND_BUS_MASTER)?;
    let capability = |link: &mut Link, id, name: &str| -> Result<u16, DriverError> {
        find(link, id)?.ok_or_else(|| unsupported(name))
    };
    let pasid = capability(link, extended_id::PASID, "the PASID capability")?;
    let pri = capability(link, extended_id::PRI, "the page request capability")?;
    let ats = capability(link, extended_id::ATS, "the ATS capability")?;
    write_u16(link, (pasid + PASID_CONTROL).into(), ENABLE)?;
    let capacity = link.read_u32(Region::Config, (pri + PRI_CAPACITY).into())?;
    let allocation = (pri + PRI_ALLOCATION).into();
    link.write_u32(Region::Config, allocation, capacity.min(PAGE_REQUESTS))?;
    write_u16(link, (pri + PRI_CONTROL).into(), ENABLE)?;
    write_u16(link, (ats + ATS_CONTROL).into(), ATS_ENABLE)
}

fn write_u16(link: &mut Link, offset: u64, value: u16) -> Result<(), DriverError> {
    link.write(Region::Config, offset, &value.to_le_bytes())
}

/// Where an extended capability stands.
fn find(link: &mut Link, id: u16) -> Result<Option<u16>, DriverError> {
    let mut at = EXTENDED;
    for _ in 0..MOST_CAPABILITIES {
        let header = link.read_u32(Region::Config, at.into())?;
        let (here, next) = split(header);
        if here == id {
            return Ok(Some(at));
        }
        if next < EXTENDED {
            return Ok(None);
        }
        at = next;
    }
    Ok(None)
}

/// The id of an extended capability and the place of the next one (PCIe 7.6.3).
const fn split(header: u32) -> (u16, u16) {
    let [a, b, c, d] = header.to_le_bytes();
    (
        u16::from_le_bytes([a, b]),
        u16::from_le_bytes([c, d]) >> 4 & !3,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_header_has_id_version_and_next() {
        assert_eq!(split(0x1101_001b), (0x1b, 0x110));
        assert_eq!(split(0x0001_000f), (0x0f, 0));
    }
}
