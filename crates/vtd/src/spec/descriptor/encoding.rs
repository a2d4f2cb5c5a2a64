use palisade_units::{Bdf, Gpa, GuestPasid, Iova, PASID_COUNT};

use super::{
    super::{
        DomainId, HOST_ADDRESS_WIDTH,
        capability::MAX_ADDRESS_MASK,
        command::Granularity,
        page_request::GroupIndex,
        queue::{DescriptorWidth, QueueError},
        words_to_bytes,
    },
    ContextScope, FunctionMask, Invalidation, IotlbScope, LeafHint, PageGroupResponse, PageRange,
    PageStreamResponse, PasidCacheScope, PasidIotlbScope, ResponseCode, Wait, WaitFlags,
    address_mask,
};

mod kind {
    pub(super) const CONTEXT_CACHE: u64 = 1;
    pub(super) const IOTLB: u64 = 2;
    pub(super) const DEVICE_TLB: u64 = 3;
    pub(super) const INTERRUPT_ENTRY_CACHE: u64 = 4;
    pub(super) const WAIT: u64 = 5;
    pub(super) const PASID_IOTLB: u64 = 6;
    pub(super) const PASID_CACHE: u64 = 7;
    pub(super) const PASID_DEVICE_TLB: u64 = 8;
    pub(super) const PAGE_GROUP_RESPONSE: u64 = 9;
    pub(super) const PAGE_STREAM_RESPONSE: u64 = 10;
}

/// Bits 11:9 and 3:0.
const TYPE: u64 = 0xe0f;
const GRANULARITY: u64 = 0x30;
const GRANULARITY_SHIFT: u32 = 4;
const LOW_ID: u64 = 0xffff_0000;
const PASID: u64 = 0x000f_ffff_0000_0000;
const HIGH_SOURCE: u64 = 0x0000_ffff_0000_0000;
const PHYSICAL_FUNCTION: u64 = 0xfff0_0000_0000_f000;
const ADDRESS: u64 = !0xfff;
const MASKED_ADDRESS: u64 = ADDRESS | 0x7f;
/// S of a type 3 descriptor.
const SIZE_FLAG: u64 = 1 << 0;
/// S of a type 8 descriptor.
const PASID_SIZE_FLAG: u64 = 1 << 11;

/// An invalidation descriptor as it stands in the queue, of 256 bits; a queue of 128-bit ones holds the
/// first two words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvDescriptor([u64; 4]);

impl InvDescriptor {
    /// The descriptor that asks for something.
    #[must_use]
    pub fn new(what: Invalidation) -> Self {
        let (low, high) = match what {
            Invalidation::ContextCache(scope) => (context_cache_word(scope), 0),
            Invalidation::Iotlb(scope) => iotlb_words(scope),
            Invalidation::DeviceTlb(function, range) => (
                kind::DEVICE_TLB | u64::from(function.requester_id()) << 32,
                range.to_sized_word(SIZE_FLAG),
            ),
            Invalidation::InterruptEntryCache => (kind::INTERRUPT_ENTRY_CACHE, 0),
            Invalidation::Wait(wait) => (
                kind::WAIT | u64::from(wait.flags.bits()) | u64::from(wait.status_data) << 32,
                wait.status_address.get() & !3,
            ),
            Invalidation::PasidIotlb(domain, pasid, scope) => {
                pasid_iotlb_words(domain, pasid, scope)
            }
            Invalidation::PasidCache(scope) => (pasid_cache_word(scope), 0),
            Invalidation::PasidDeviceTlb(function, pasid, range) => (
                kind::PASID_DEVICE_TLB
                    | u64::from(function.requester_id()) << 16
                    | pasid_field(pasid),
                range.to_sized_word(PASID_SIZE_FLAG) | u64::from(pasid.is_none()),
            ),
            Invalidation::PageStreamResponse(response) => stream_response_words(response),
            Invalidation::PageGroupResponse(response) => (
                kind::PAGE_GROUP_RESPONSE
                    | u64::from(response.pasid.is_some()) << 4
                    | u64::from(response.code.into_bits()) << 12
                    | u64::from(response.requester.requester_id()) << 16
                    | pasid_field(response.pasid),
                u64::from(response.group.get()) << 3,
            ),
        };
        Self([low, high, 0, 0])
    }

    /// Invalidates the context cache.
    #[must_use]
    pub fn context_cache(scope: ContextScope) -> Self {
        Self::new(Invalidation::ContextCache(scope))
    }

    /// Invalidates the PASID cache.
    #[must_use]
    pub fn pasid_cache(scope: PasidCacheScope) -> Self {
        Self::new(Invalidation::PasidCache(scope))
    }

    /// Invalidates the IOTLB.
    #[must_use]
    pub fn iotlb(scope: IotlbScope) -> Self {
        Self::new(Invalidation::Iotlb(scope))
    }

    /// Invalidates a PASID's translations.
    #[must_use]
    pub fn pasid_iotlb(domain: DomainId, pasid: GuestPasid, scope: PasidIotlbScope) -> Self {
        Self::new(Invalidation::PasidIotlb(domain, pasid, scope))
    }

    /// Invalidates a device's own translations of requests without a PASID.
    #[must_use]
    pub fn dev_tlb(function: Bdf, range: PageRange) -> Self {
        Self::new(Invalidation::DeviceTlb(function, range))
    }

    /// Invalidates a device's own translations of a PASID.
    #[must_use]
    pub fn pasid_dev_tlb(function: Bdf, pasid: GuestPasid, range: PageRange) -> Self {
        Self::new(Invalidation::PasidDeviceTlb(function, Some(pasid), range))
    }

    /// Waits for all before it, then writes `data` to `address`.
    #[must_use]
    pub fn wait(address: Gpa, data: u32, flags: WaitFlags) -> Self {
        Self::new(Invalidation::Wait(Wait {
            flags: flags | WaitFlags::STATUS_WRITE,
            status_address: address,
            status_data: data,
        }))
    }

    /// Answers a page request group.
    #[must_use]
    pub fn page_group_response(response: PageGroupResponse) -> Self {
        Self::new(Invalidation::PageGroupResponse(response))
    }

    /// From the words as they stand in a queue of 256-bit descriptors.
    #[must_use]
    pub const fn from_words(words: [u64; 4]) -> Self {
        Self(words)
    }

    /// The words as they stand in memory.
    #[must_use]
    pub const fn to_words(self) -> [u64; 4] {
        self.0
    }

    /// The bytes as they stand in memory.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 32] {
        words_to_bytes!(self.0, 4)
    }

    /// What it asks for.
    ///
    /// # Errors
    /// [`QueueError::DescriptorType`] for a type that the width does not have,
    /// [`QueueError::ReservedField`] for reserved bits and reserved values.
    pub fn decode(self, width: DescriptorWidth) -> Result<Invalidation, QueueError> {
        let [low, high, third, fourth] = self.0;
        let what = match low & TYPE {
            // Older than the higher bits of the type: its PASID is there.
            _ if low & 0xf == kind::PAGE_STREAM_RESPONSE => {
                Invalidation::PageStreamResponse(stream_response(low, high)?)
            }
            kind::CONTEXT_CACHE => {
                check_low(low, GRANULARITY | LOW_ID | HIGH_SOURCE | 3 << 48)?;
                check(high, 0)?;
                Invalidation::ContextCache(context_scope(low)?)
            }
            kind::IOTLB => {
                check_low(low, GRANULARITY | 0xc0 | LOW_ID)?;
                check(high, MASKED_ADDRESS)?;
                Invalidation::Iotlb(iotlb_scope(low, high)?)
            }
            kind::DEVICE_TLB => {
                check_low(low, 0x1f_0000 | HIGH_SOURCE | PHYSICAL_FUNCTION)?;
                check(high, ADDRESS | SIZE_FLAG)?;
                let range = PageRange::from_sized_word(high, SIZE_FLAG);
                Invalidation::DeviceTlb(source_at(low, 32), range)
            }
            kind::INTERRUPT_ENTRY_CACHE => {
                check_low(low, 0x10 | 0xf800_0000 | HIGH_SOURCE)?;
                check(high, 0)?;
                Invalidation::InterruptEntryCache
            }
            kind::WAIT => {
                check_low(low, 0xffff_ffff_0000_00f0)?;
                check(high, !3)?;
                let [flags, ..] = low.to_le_bytes();
                let [.., a, b, c, d] = low.to_le_bytes();
                Invalidation::Wait(Wait {
                    flags: WaitFlags::from_bits_truncate(flags),
                    status_address: Gpa::new(high & ((1 << HOST_ADDRESS_WIDTH) - 1)),
                    status_data: u32::from_le_bytes([a, b, c, d]),
                })
            }
            kind::PASID_IOTLB => {
                check_low(low, GRANULARITY | LOW_ID | PASID)?;
                check(high, MASKED_ADDRESS)?;
                let scope = match low >> GRANULARITY_SHIFT & 3 {
                    2 => PasidIotlbScope::All,
                    3 => PasidIotlbScope::Pages(
                        PageRange::from_masked_word(high),
                        LeafHint::from_word(high),
                    ),
                    _ => return Err(QueueError::ReservedField),
                };
                Invalidation::PasidIotlb(domain(low), pasid(low)?, scope)
            }
            kind::PASID_CACHE => {
                check_low(low, GRANULARITY | LOW_ID | PASID)?;
                check(high, 0)?;
                Invalidation::PasidCache(match low >> GRANULARITY_SHIFT & 3 {
                    0 => PasidCacheScope::Domain(domain(low)),
                    1 => PasidCacheScope::Pasid(domain(low), pasid(low)?),
                    3 => PasidCacheScope::Global,
                    _ => return Err(QueueError::ReservedField),
                })
            }
            kind::PASID_DEVICE_TLB => {
                check_low(low, 0x1f0 | LOW_ID | PASID | PHYSICAL_FUNCTION)?;
                check(high, ADDRESS | PASID_SIZE_FLAG | 1)?;
                let range = PageRange::from_sized_word(high, PASID_SIZE_FLAG);
                let pasid = pasid(low)?;
                let one = (high & 1 == 0).then_some(pasid);
                Invalidation::PasidDeviceTlb(source_at(low, 16), one, range)
            }
            kind::PAGE_GROUP_RESPONSE => {
                check_low(low, 0x10 | 0xf000 | LOW_ID | PASID)?;
                check(high, 0xfff)?;
                let [index, index_high, ..] = (high >> 3).to_le_bytes();
                let [_, code, ..] = low.to_le_bytes();
                let pasid = pasid(low)?;
                Invalidation::PageGroupResponse(PageGroupResponse {
                    requester: source_at(low, 16),
                    pasid: (low & 0x10 != 0).then_some(pasid),
                    group: GroupIndex::new(u16::from_le_bytes([index, index_high])),
                    code: ResponseCode::from_bits(code >> 4),
                })
            }
            _ => return Err(QueueError::DescriptorType),
        };
        match width {
            DescriptorWidth::Bits128 if !what.is_of_legacy_mode() => {
                Err(QueueError::DescriptorType)
            }
            DescriptorWidth::Bits256 if third != 0 || fourth != 0 => Err(QueueError::ReservedField),
            _ => Ok(what),
        }
    }
}

fn check_low(word: u64, defined: u64) -> Result<(), QueueError> {
    check(word, defined | TYPE)
}

fn check(word: u64, defined: u64) -> Result<(), QueueError> {
    if word & !defined == 0 {
        Ok(())
    } else {
        Err(QueueError::ReservedField)
    }
}

fn pasid_field(pasid: Option<GuestPasid>) -> u64 {
    pasid.map_or(0, |pasid| u64::from(pasid.get()) << 32)
}

fn pasid(low: u64) -> Result<GuestPasid, QueueError> {
    let raw = low >> 32 & u64::from(PASID_COUNT - 1);
    let raw = u32::try_from(raw).map_err(|_| QueueError::ReservedField)?;
    GuestPasid::new(raw).map_err(|_| QueueError::ReservedField)
}

fn word_at(low: u64, shift: u32) -> u16 {
    let [a, b, ..] = (low >> shift).to_le_bytes();
    u16::from_le_bytes([a, b])
}

fn domain(low: u64) -> DomainId {
    DomainId::new(word_at(low, 16))
}

fn source_at(low: u64, shift: u32) -> Bdf {
    Bdf::from_requester_id(word_at(low, shift))
}

fn granularity(low: u64) -> Granularity {
    let [byte, ..] = (low >> GRANULARITY_SHIFT & 3).to_le_bytes();
    Granularity::from_bits(byte)
}

fn granularity_field(granularity: Granularity) -> u64 {
    u64::from(granularity.into_bits()) << GRANULARITY_SHIFT
}

fn context_scope(low: u64) -> Result<ContextScope, QueueError> {
    let [mask, ..] = (low >> 48).to_le_bytes();
    match granularity(low) {
        Granularity::Reserved => Err(QueueError::ReservedField),
        Granularity::Global => Ok(ContextScope::Global),
        Granularity::Domain => Ok(ContextScope::Domain(domain(low))),
        Granularity::Selective => Ok(ContextScope::Device {
            source: source_at(low, 32),
            mask: FunctionMask::new(mask),
            domain: domain(low),
        }),
    }
}

fn context_cache_word(scope: ContextScope) -> u64 {
    kind::CONTEXT_CACHE
        | match scope {
            ContextScope::Global => granularity_field(Granularity::Global),
            ContextScope::Domain(domain) => {
                granularity_field(Granularity::Domain) | u64::from(domain.get()) << 16
            }
            ContextScope::Device {
                source,
                mask,
                domain,
            } => {
                granularity_field(Granularity::Selective)
                    | u64::from(domain.get()) << 16
                    | u64::from(source.requester_id()) << 32
                    | u64::from(mask.get()) << 48
            }
        }
}

fn iotlb_scope(low: u64, high: u64) -> Result<IotlbScope, QueueError> {
    match granularity(low) {
        Granularity::Reserved => Err(QueueError::ReservedField),
        Granularity::Global => Ok(IotlbScope::Global),
        Granularity::Domain => Ok(IotlbScope::Domain(domain(low))),
        Granularity::Selective if address_mask(high) > MAX_ADDRESS_MASK => {
            Err(QueueError::ReservedField)
        }
        Granularity::Selective => Ok(IotlbScope::Pages(
            domain(low),
            PageRange::from_masked_word(high),
            LeafHint::from_word(high),
        )),
    }
}

fn iotlb_words(scope: IotlbScope) -> (u64, u64) {
    let (granularity, domain, high) = match scope {
        IotlbScope::Global => (Granularity::Global, 0, 0),
        IotlbScope::Domain(domain) => (Granularity::Domain, domain.get(), 0),
        IotlbScope::Pages(domain, range, hint) => {
            let high = range.to_masked_word() | hint.to_bit();
            (Granularity::Selective, domain.get(), high)
        }
    };
    let low = kind::IOTLB | granularity_field(granularity) | u64::from(domain) << 16;
    (low, high)
}

fn pasid_iotlb_words(domain: DomainId, pasid: GuestPasid, scope: PasidIotlbScope) -> (u64, u64) {
    let (granularity, high) = match scope {
        PasidIotlbScope::All => (2, 0),
        PasidIotlbScope::Pages(range, hint) => (3, range.to_masked_word() | hint.to_bit()),
    };
    let low = kind::PASID_IOTLB
        | granularity << GRANULARITY_SHIFT
        | u64::from(domain.get()) << 16
        | pasid_field(Some(pasid));
    (low, high)
}

fn pasid_cache_word(scope: PasidCacheScope) -> u64 {
    let (granularity, domain, pasid) = match scope {
        PasidCacheScope::Domain(domain) => (0, domain.get(), None),
        PasidCacheScope::Pasid(domain, pasid) => (1, domain.get(), Some(pasid)),
        PasidCacheScope::Global => (3, 0, None),
    };
    kind::PASID_CACHE
        | granularity << GRANULARITY_SHIFT
        | u64::from(domain) << 16
        | pasid_field(pasid)
}

/// PASID at 23:4, BUS at 31:24, private data at 54:32 and the index at 63:55 of the first word; the code at
/// 3:0, DEVFN at 11:4 and the address of the second.
fn stream_response_words(response: PageStreamResponse) -> (u64, u64) {
    let [devfn, bus] = response.requester.requester_id().to_le_bytes();
    let low = kind::PAGE_STREAM_RESPONSE
        | u64::from(response.pasid.get()) << 4
        | u64::from(bus) << 24
        | u64::from(response.group.get()) << 55;
    let high =
        u64::from(response.code.into_bits()) | u64::from(devfn) << 4 | response.at.get() & ADDRESS;
    (low, high)
}

fn stream_response(low: u64, high: u64) -> Result<PageStreamResponse, QueueError> {
    const PRIVATE_DATA: u64 = 0x007f_ffff_0000_0000;
    check(low, !PRIVATE_DATA)?;
    let [.., bus, _, _, _, _] = low.to_le_bytes();
    let [devfn, ..] = (high >> 4).to_le_bytes();
    let [code, ..] = high.to_le_bytes();
    Ok(PageStreamResponse {
        requester: Bdf::from_requester_id(u16::from_le_bytes([devfn, bus])),
        pasid: pasid(low << 28)?,
        group: GroupIndex::new(word_at(low, 55)),
        at: Iova::new(high & ADDRESS),
        code: ResponseCode::from_bits(code & 0xf),
    })
}
