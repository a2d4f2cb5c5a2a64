use palisade_units::{Bdf, Gpa, GuestPasid, Iova};
use proptest::prelude::*;

use super::super::capability::MAX_ADDRESS_MASK;
use super::{super::queue::DescriptorWidth::*, super::queue::QueueError, *};

const FUNCTION: Bdf = Bdf::new(0, 0x10, 1);

fn pasid(raw: u32) -> GuestPasid {
    GuestPasid::new(raw).unwrap()
}

#[test]
fn linux_tells_of_a_new_pasid_entry() {
    let descriptor =
        InvDescriptor::pasid_cache(PasidCacheScope::Pasid(DomainId::new(1), pasid(0x12)));
    assert_eq!(descriptor.to_words(), [0x12_0001_0017, 0, 0, 0]);
}

#[test]
fn linux_invalidates_all_that_a_pasid_has() {
    let descriptor =
        InvDescriptor::pasid_iotlb(DomainId::new(1), pasid(0x12), PasidIotlbScope::All);
    assert_eq!(descriptor.to_words(), [0x12_0001_0026, 0, 0, 0]);
}

#[test]
fn linux_invalidates_pages_of_a_pasid() {
    let pages = PageRange::holding(Iova::new(0x7f12_3456_7000), 3);
    let descriptor = InvDescriptor::pasid_iotlb(
        DomainId::new(1),
        pasid(1),
        PasidIotlbScope::Pages(pages, LeafHint::AnyLevel),
    );
    assert_eq!(
        descriptor.to_words(),
        [0x1_0001_0036, 0x7f12_3456_0000 | 3, 0, 0]
    );
}

#[test]
fn linux_waits_for_a_status_write() {
    let descriptor = InvDescriptor::wait(Gpa::new(0x5004), 2, WaitFlags::empty());
    assert_eq!(descriptor.to_words(), [0x2_0000_0025, 0x5004, 0, 0]);
}

#[test]
fn linux_answers_a_page_group() {
    let descriptor = InvDescriptor::page_group_response(PageGroupResponse {
        requester: FUNCTION,
        pasid: Some(pasid(5)),
        group: GroupIndex::new(0x101),
        code: ResponseCode::InvalidRequest,
    });
    assert_eq!(descriptor.to_words(), [0x5_0081_1019, 0x101 << 3, 0, 0]);
}

#[test]
fn linux_invalidates_a_whole_device_tlb() {
    // S set and all page number bits but the top one: everything.
    let words = [0x81_0000_0003, 0x7fff_ffff_ffff_f001, 0, 0];
    assert_eq!(
        InvDescriptor::from_words(words).decode(Bits256),
        Ok(Invalidation::DeviceTlb(FUNCTION, PageRange::ALL))
    );
}

#[test]
fn a_device_tlb_size_is_the_lowest_clear_bit() {
    // Two pages: bit 12 clear. Eight pages: bits 12 and 13 set, 14 clear.
    for (word, order) in [(0x8000_0001, 1), (0x8000_3001, 3)] {
        let descriptor = InvDescriptor::from_words([0x81_0000_0003, word, 0, 0]);
        let range = PageRange::holding(Iova::new(0x8000_0000), order);
        assert_eq!(
            descriptor.decode(Bits256),
            Ok(Invalidation::DeviceTlb(FUNCTION, range)),
            "{word:#x}"
        );
    }
}

#[test]
fn a_range_is_aligned_to_its_size() {
    let range = PageRange::holding(Iova::new(0x1234_5678), 9);
    assert_eq!(range.at(), Iova::new(0x1220_0000));
    assert_eq!(range.len_bytes(), Some(2 << 20));
    assert_eq!(PageRange::holding(Iova::new(u64::MAX), 52), PageRange::ALL);
    assert_eq!(PageRange::ALL.len_bytes(), None);
}

#[test]
fn a_function_mask_leaves_out_high_bits_of_the_function_number_first() {
    let other = |function| Bdf::new(0, 0x10, function);
    let matching = |mask| {
        (0..8)
            .filter(|f| FunctionMask::new(mask).matches(FUNCTION, other(*f)))
            .collect::<Vec<_>>()
    };
    assert_eq!(matching(0), [1]);
    assert_eq!(matching(1), [1, 5]);
    assert_eq!(matching(2), [1, 3, 5, 7]);
    assert_eq!(matching(3), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert!(!FunctionMask::new(3).matches(FUNCTION, Bdf::new(0, 0x11, 1)));
}

#[test]
fn reserved_granularities_are_refused() {
    for low in [0x01, 0x02, 0x06, 0x16, 0x27] {
        assert_eq!(
            InvDescriptor::from_words([low, 0, 0, 0]).decode(Bits256),
            Err(QueueError::ReservedField),
            "{low:#x}"
        );
    }
}

#[test]
fn unknown_types_are_refused() {
    for low in [0x0, 0xb, 0xc, 0xf, 0x205, 0xe01] {
        assert_eq!(
            InvDescriptor::from_words([low, 0, 0, 0]).decode(Bits256),
            Err(QueueError::DescriptorType),
            "{low:#x}"
        );
    }
}

#[test]
fn a_narrow_queue_has_the_types_of_legacy_mode_alone() {
    let narrow = InvDescriptor::iotlb(IotlbScope::Global);
    assert!(narrow.decode(Bits128).is_ok());
    let wide = InvDescriptor::pasid_cache(PasidCacheScope::Global);
    assert_eq!(wide.decode(Bits128), Err(QueueError::DescriptorType));
}

#[test]
fn older_software_answers_a_stream_of_page_requests() {
    let descriptor = InvDescriptor::new(Invalidation::PageStreamResponse(PageStreamResponse {
        requester: FUNCTION,
        pasid: pasid(0xabcde),
        group: GroupIndex::new(0x101),
        at: Iova::new(0x7f12_3456_7000),
        code: ResponseCode::InvalidRequest,
    }));
    let low = 0x101 << 55 | 0x00ab_cdea;
    assert_eq!(descriptor.to_words(), [low, 0x7f12_3456_7000 | 0x811, 0, 0]);
    assert_eq!(
        descriptor.decode(Bits128),
        Err(QueueError::DescriptorType),
        "no page requests in legacy mode"
    );
    let with_private_data = InvDescriptor::from_words([low | 1 << 32, 0, 0, 0]);
    assert_eq!(
        with_private_data.decode(Bits256),
        Err(QueueError::ReservedField)
    );
}

#[test]
fn r40_the_leaf_hint_is_bit_6_of_the_address() {
    for (bit, hint) in [(0, LeafHint::AnyLevel), (1 << 6, LeafHint::LeavesOnly)] {
        let range = PageRange::holding(Iova::new(0x4000_0000), 9);
        let words = [0x1_0032, 0x4000_0009 | bit, 0, 0];
        assert_eq!(
            InvDescriptor::from_words(words).decode(Bits256),
            Ok(Invalidation::Iotlb(IotlbScope::Pages(
                DomainId::new(1),
                range,
                hint
            )))
        );
        let words = [0x5_0001_0036, 0x4000_0009 | bit, 0, 0];
        assert_eq!(
            InvDescriptor::from_words(words).decode(Bits256),
            Ok(Invalidation::PasidIotlb(
                DomainId::new(1),
                pasid(5),
                PasidIotlbScope::Pages(range, hint)
            ))
        );
    }
}

/// A queue has no actual granularity to answer with, so that a mask beyond CAP.MAMV is a wrong value of a
/// field. The IOTLB of a PASID has no such bound.
#[test]
fn r40_an_address_mask_beyond_the_capability_is_refused() {
    let of_domain = |order| InvDescriptor::from_words([0x1_0032, order, 0, 0]).decode(Bits256);
    let of_pasid = |order| InvDescriptor::from_words([0x36, order, 0, 0]).decode(Bits256);
    let largest = u64::from(MAX_ADDRESS_MASK);
    assert!(of_domain(largest).is_ok());
    for order in largest + 1..64 {
        assert_eq!(of_domain(order), Err(QueueError::ReservedField), "{order}");
        assert!(of_pasid(order).is_ok(), "{order}");
    }
    // Without pages there is no mask to judge.
    let global = InvDescriptor::from_words([0x12, 0x3f, 0, 0]);
    assert!(global.decode(Bits256).is_ok());
}

#[test]
fn the_padding_of_a_wide_descriptor_is_reserved() {
    let [low, high, ..] = InvDescriptor::iotlb(IotlbScope::Global).to_words();
    let padded = InvDescriptor::from_words([low, high, 0, 1]);
    assert_eq!(padded.decode(Bits256), Err(QueueError::ReservedField));
}

fn any_domain() -> impl Strategy<Value = DomainId> {
    any::<u16>().prop_map(DomainId::new)
}

fn any_pasid() -> impl Strategy<Value = GuestPasid> {
    (0_u32..1 << 20).prop_map(pasid)
}

fn any_function() -> impl Strategy<Value = Bdf> {
    any::<u16>().prop_map(Bdf::from_requester_id)
}

fn any_range() -> impl Strategy<Value = PageRange> {
    any_range_up_to(52)
}

fn any_range_up_to(order: u8) -> impl Strategy<Value = PageRange> {
    (any::<u64>(), 0..=order).prop_map(|(at, order)| PageRange::holding(Iova::new(at), order))
}

fn any_hint() -> impl Strategy<Value = LeafHint> {
    prop_oneof![Just(LeafHint::AnyLevel), Just(LeafHint::LeavesOnly)]
}

fn any_invalidation() -> impl Strategy<Value = Invalidation> {
    let device = (any_function(), 0_u8..4, any_domain()).prop_map(|(source, mask, domain)| {
        Invalidation::ContextCache(ContextScope::Device {
            source,
            mask: FunctionMask::new(mask),
            domain,
        })
    });
    let response = (
        any_function(),
        proptest::option::of(any_pasid()),
        0_u16..512,
        0_u8..16,
    );
    prop_oneof![
        Just(Invalidation::ContextCache(ContextScope::Global)),
        any_domain().prop_map(|d| Invalidation::ContextCache(ContextScope::Domain(d))),
        device,
        Just(Invalidation::Iotlb(IotlbScope::Global)),
        any_domain().prop_map(|d| Invalidation::Iotlb(IotlbScope::Domain(d))),
        (any_domain(), any_range_up_to(MAX_ADDRESS_MASK), any_hint())
            .prop_map(|(d, r, h)| Invalidation::Iotlb(IotlbScope::Pages(d, r, h))),
        (any_function(), any_range()).prop_map(|(f, r)| Invalidation::DeviceTlb(f, r)),
        Just(Invalidation::InterruptEntryCache),
        (any::<u8>(), any::<u64>(), any::<u32>()).prop_map(|(flags, at, data)| {
            Invalidation::Wait(Wait {
                flags: WaitFlags::from_bits_truncate(flags),
                status_address: Gpa::new(at & ((1 << 52) - 4)),
                status_data: data,
            })
        }),
        (any_domain(), any_pasid()).prop_map(|(d, p)| Invalidation::PasidIotlb(
            d,
            p,
            PasidIotlbScope::All
        )),
        (any_domain(), any_pasid(), any_range(), any_hint()).prop_map(|(d, p, r, h)| {
            Invalidation::PasidIotlb(d, p, PasidIotlbScope::Pages(r, h))
        }),
        Just(Invalidation::PasidCache(PasidCacheScope::Global)),
        any_domain().prop_map(|d| Invalidation::PasidCache(PasidCacheScope::Domain(d))),
        (any_domain(), any_pasid())
            .prop_map(|(d, p)| Invalidation::PasidCache(PasidCacheScope::Pasid(d, p))),
        (any_function(), any_pasid(), any_range())
            .prop_map(|(f, p, r)| Invalidation::PasidDeviceTlb(f, Some(p), r)),
        (any_function(), any_range()).prop_map(|(f, r)| Invalidation::PasidDeviceTlb(f, None, r)),
        response.prop_map(|(requester, pasid, group, code)| {
            Invalidation::PageGroupResponse(PageGroupResponse {
                requester,
                pasid,
                group: GroupIndex::new(group),
                code: match code {
                    0 => ResponseCode::Success,
                    1 => ResponseCode::InvalidRequest,
                    15 => ResponseCode::Failure,
                    other => ResponseCode::Reserved(other),
                },
            })
        }),
        (any_function(), any_pasid(), 0_u16..512, 0_u64..1 << 52).prop_map(
            |(requester, pasid, group, page)| {
                Invalidation::PageStreamResponse(PageStreamResponse {
                    requester,
                    pasid,
                    group: GroupIndex::new(group),
                    at: Iova::new(page << 12),
                    code: ResponseCode::InvalidRequest,
                })
            }
        ),
    ]
}

proptest! {
    #[test]
    fn every_descriptor_comes_back_as_it_was(what in any_invalidation()) {
        prop_assert_eq!(InvDescriptor::new(what).decode(Bits256), Ok(what));
    }

    #[test]
    fn no_words_panic(words in any::<[u64; 4]>(), kind in 0_u64..16) {
        let words = [words[0] & !0xe0f | kind, words[1], words[2], words[3]];
        for width in [Bits128, Bits256] {
            let _ = InvDescriptor::from_words(words).decode(width);
        }
    }
}
