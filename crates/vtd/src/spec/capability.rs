//! CAP, ECAP and VER: what the model can do, built from its own limits (VT-d §11.4.1 to §11.4.3).

use bitfield_struct::bitfield;
use palisade_units::PASID_BITS;

use super::{context::AddressWidth, register};

/// VER_REG: version 4.0. From 8 on the specification knows no requests to execute, from 6 on no
/// register-based invalidation, which the legacy mode of this model has.
pub const VERSION: u32 = 0x40;

/// CAP_REG (VT-d §11.4.2).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Capabilities {
    /// ND: domain identifiers have 4 + 2 × this many bits.
    #[bits(3)]
    pub domain_id_bits: u8,
    __: bool,
    /// RWBF: software must flush write buffers.
    pub write_buffer_flushing: bool,
    /// PLMR: a protected low-memory region.
    pub protected_low_memory: bool,
    /// PHMR: a protected high-memory region.
    pub protected_high_memory: bool,
    /// CM: entries that are not present may be cached, so software tells of every change.
    pub caching_mode: bool,
    /// SAGAW: bit n stands for a second stage of n + 2 levels.
    #[bits(5)]
    pub second_stage_widths: u8,
    #[bits(3)]
    __: u8,
    /// MGAW: guest addresses of the second stage have this many bits, plus one.
    #[bits(6)]
    pub guest_address_width: u8,
    /// ZLR: zero-length reads of write-only pages.
    pub zero_length_read: bool,
    __: bool,
    /// FRO: the offset of the fault records, in 16-byte units.
    #[bits(10)]
    pub fault_record_offset: u16,
    /// SSLPS: bit 0 for 2 MiB, bit 1 for 1 GiB pages of the second stage.
    #[bits(4)]
    pub second_stage_large_pages: u8,
    __: bool,
    /// PSI: page-selective invalidation.
    pub page_selective: bool,
    /// NFR: the number of fault records, less one.
    pub fault_records: u8,
    /// MAMV: the largest address mask of an IOTLB invalidation.
    #[bits(6)]
    pub max_address_mask: u8,
    /// DWD: writes are drained.
    pub write_draining: bool,
    /// DRD: reads are drained.
    pub read_draining: bool,
    /// FS1GP: 1 GiB pages of the first stage.
    pub first_stage_1g: bool,
    #[bits(2)]
    __: u8,
    /// PI: posted interrupts.
    pub posted_interrupts: bool,
    /// FS5LP: five levels of the first stage.
    pub first_stage_5_level: bool,
    /// ECMDS: enhanced commands.
    pub enhanced_commands: bool,
    /// ESIRTPS: setting the interrupt remapping table invalidates.
    pub set_interrupt_table_invalidates: bool,
    /// ESRTPS: setting the root table invalidates.
    pub set_root_table_invalidates: bool,
}

/// ECAP_REG (VT-d §11.4.3).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct ExtendedCapabilities {
    /// C: the unit snoops when it reads root, context and PASID structures.
    pub coherent: bool,
    /// QI: queued invalidation.
    pub queued_invalidation: bool,
    /// DT: device TLBs.
    pub device_tlb: bool,
    /// IR: interrupt remapping.
    pub interrupt_remapping: bool,
    /// EIM: x2APIC destinations.
    pub extended_interrupt_mode: bool,
    __: bool,
    /// PT: pass-through.
    pub pass_through: bool,
    /// SC: snoop control.
    pub snoop_control: bool,
    /// IRO: the offset of the IOTLB registers, in 16-byte units.
    #[bits(10)]
    pub iotlb_offset: u16,
    #[bits(2)]
    __: u8,
    /// MHMV: the largest mask of an interrupt entry invalidation.
    #[bits(4)]
    pub max_handle_mask: u8,
    __: bool,
    /// MTS: memory types.
    pub memory_types: bool,
    /// NEST: nested translation.
    pub nested: bool,
    #[bits(2)]
    __: u8,
    /// PRS: page requests.
    pub page_requests: bool,
    /// ERS: requests to execute.
    pub execute_requests: bool,
    /// SRS: privileged requests.
    pub supervisor_requests: bool,
    __: bool,
    /// NWFS: the no-write flag of translation requests.
    pub no_write_flag: bool,
    /// EAFS: the extended accessed flag.
    pub extended_accessed: bool,
    /// PSS: PASIDs have this many bits, plus one.
    #[bits(5)]
    pub pasid_width: u8,
    /// PASID: requests with a PASID.
    pub pasid: bool,
    /// DIT: device-TLB invalidations are throttled.
    pub invalidation_throttle: bool,
    /// PDS: page requests are drained.
    pub page_request_draining: bool,
    /// SMTS: scalable mode.
    pub scalable_mode: bool,
    /// VCS: virtual commands.
    pub virtual_commands: bool,
    /// SSADS: accessed and dirty bits of the second stage.
    pub second_stage_marks: bool,
    /// SSTS: second-stage translation in scalable mode.
    pub second_stage: bool,
    /// FSTS: first-stage translation.
    pub first_stage: bool,
    /// SMPWCS: the unit snoops when it walks page tables.
    pub walk_snoops: bool,
    /// RPS: the context entry names the PASID of requests without one.
    pub rid_pasid: bool,
    __: bool,
    /// PMS: performance monitoring.
    pub performance_monitoring: bool,
    /// ADMS: abort-DMA mode.
    pub abort_dma: bool,
    /// RPRIVS: requests without a PASID may be privileged.
    pub rid_privilege: bool,
    #[bits(10)]
    __: u16,
}

/// What second stages of a guest may have.
pub const SECOND_STAGE_WIDTHS: [AddressWidth; 3] = [
    AddressWidth::ThreeLevel,
    AddressWidth::FourLevel,
    WIDEST_SECOND_STAGE,
];

/// The widest of them.
pub const WIDEST_SECOND_STAGE: AddressWidth = AddressWidth::FiveLevel;

/// SAGAW: a bit for each width.
const fn second_stage_widths() -> u8 {
    let [three, four, five] = SECOND_STAGE_WIDTHS;
    1 << three.into_bits() | 1 << four.into_bits() | 1 << five.into_bits()
}

const fn low_byte(value: u64) -> u8 {
    value.to_le_bytes()[0]
}

/// An offset as CAP.FRO and ECAP.IRO tell it.
const fn units_of_16(offset: u64) -> u16 {
    let [low, high, ..] = (offset / 16).to_le_bytes();
    u16::from_le_bytes([low, high])
}

/// CAP_REG of every unit.
pub const CAPABILITIES: Capabilities = Capabilities::new()
    .with_domain_id_bits(6)
    .with_caching_mode(true)
    .with_second_stage_widths(second_stage_widths())
    .with_guest_address_width(low_byte(WIDEST_SECOND_STAGE.address_bits() as u64 - 1))
    .with_fault_record_offset(units_of_16(register::FAULT_RECORDS))
    .with_second_stage_large_pages(0b11)
    .with_page_selective(true)
    .with_fault_records(low_byte(register::FAULT_RECORD_COUNT - 1))
    .with_max_address_mask(MAX_ADDRESS_MASK)
    .with_write_draining(true)
    .with_read_draining(true)
    .with_first_stage_1g(true)
    .with_first_stage_5_level(true);

/// The largest address mask of an IOTLB invalidation: 1 GiB.
pub const MAX_ADDRESS_MASK: u8 = 18;

/// ECAP_REG of a unit without virtual commands; VCS is added where they are on.
///
/// Requests to execute are not there: the specification withdraws them.
pub const EXTENDED: ExtendedCapabilities = ExtendedCapabilities::new()
    .with_coherent(true)
    .with_queued_invalidation(true)
    .with_device_tlb(true)
    .with_pass_through(true)
    .with_snoop_control(true)
    .with_iotlb_offset(units_of_16(register::IVA))
    .with_nested(true)
    .with_page_requests(true)
    .with_supervisor_requests(true)
    .with_pasid_width(low_byte(PASID_BITS as u64 - 1))
    .with_pasid(true)
    .with_page_request_draining(true)
    .with_scalable_mode(true)
    .with_extended_accessed(true)
    .with_second_stage_marks(true)
    .with_second_stage(true)
    .with_first_stage(true)
    .with_walk_snoops(true)
    .with_rid_pasid(true);

const _: () = {
    assert!(CAPABILITIES.fault_record_offset() as u64 * 16 == register::FAULT_RECORDS);
    assert!(CAPABILITIES.fault_records() as u64 + 1 == register::FAULT_RECORD_COUNT);
    assert!(EXTENDED.iotlb_offset() as u64 * 16 == register::IVA);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_linux_needs_for_shared_virtual_addressing_is_there() {
        let cap = CAPABILITIES.into_bits();
        for (bit, name) in [
            (7, "CM"),
            (39, "PSI"),
            (54, "DWD"),
            (55, "DRD"),
            (56, "FS1GP"),
            (60, "FS5LP"),
        ] {
            assert_eq!(cap >> bit & 1, 1, "{name}");
        }
        assert_eq!(cap >> 8 & 0x1f, 0b1110, "SAGAW: three to five levels");
        assert_eq!(cap >> 16 & 0x3f, 56, "MGAW");
        assert_eq!(cap >> 24 & 0x3ff, 0x100, "FRO");
        assert_eq!(cap >> 40 & 0xff, 255, "NFR");
        assert_eq!(cap & 7, 6, "ND: 16 bits");

        let ecap = EXTENDED.into_bits();
        for (bit, name) in [
            (0, "C"),
            (1, "QI"),
            (2, "DT"),
            (26, "NEST"),
            (29, "PRS"),
            (31, "SRS"),
            (40, "PASID"),
            (42, "PDS"),
            (34, "EAFS"),
            (43, "SMTS"),
            (45, "SSADS"),
            (46, "SSTS"),
            (47, "FSTS"),
            (48, "SMPWCS"),
            (49, "RPS"),
        ] {
            assert_eq!(ecap >> bit & 1, 1, "{name}");
        }
        assert_eq!(ecap >> 35 & 0x1f, 19, "PSS");
        assert_eq!(ecap >> 8 & 0x3ff, 0xf, "IRO");
    }

    #[test]
    fn what_is_not_there_is_not_advertised() {
        let ecap = EXTENDED.into_bits();
        for (bit, name) in [
            (3, "IR"),
            (4, "EIM"),
            (25, "MTS"),
            (30, "ERS"),
            (33, "NWFS"),
            (41, "DIT"),
            (44, "VCS"),
            (51, "PMS"),
            (52, "ADMS"),
            (53, "RPRIVS"),
        ] {
            assert_eq!(ecap >> bit & 1, 0, "{name}");
        }
        assert_eq!(ecap >> 20 & 0xf, 0, "MHMV");
        let cap = CAPABILITIES.into_bits();
        for (bit, name) in [
            (4, "RWBF"),
            (5, "PLMR"),
            (6, "PHMR"),
            (22, "ZLR"),
            (59, "PI"),
            (61, "ECMDS"),
            (62, "ESIRTPS"),
            (63, "ESRTPS"),
        ] {
            assert_eq!(cap >> bit & 1, 0, "{name}");
        }
    }
}
