//! Descriptors that nobody in his right mind would write.

use proptest::prelude::*;

use super::BLOCK;
use super::scattered::{BASE, LIST, PAGES, Scattered};
use crate::spec::{Descriptor, DifBlock, Flags, Opcode, Status};
use crate::testing::Host;

fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => (0..(PAGES as u64) << 12).prop_map(|at| BASE + at),
        2 => (0..(PAGES as u64) << 12).prop_map(|at| BASE + at / 64 * 64),
        1 => (0_u64..0x3000).prop_map(|below| u64::MAX - below),
        1 => (0_u64..0x3000).prop_map(|at| at),
        1 => any::<u64>(),
    ]
}

fn size() -> impl Strategy<Value = u32> {
    let blocks = (
        prop::sample::select(DifBlock::ALL.to_vec()),
        1_u32..6,
        any::<bool>(),
    );
    prop_oneof![
        2 => 0_u32..0x100,
        2 => (0_u32..0x1000).prop_map(|words| words * 8),
        2 => blocks.prop_map(|(block, count, whole)| {
            count * if whole { block.bytes_with_field() } else { block.bytes() }
        }),
        1 => Just(u32::MAX),
        1 => any::<u32>(),
    ]
}

fn specific() -> impl Strategy<Value = [u8; 24]> {
    let record = (address(), 8_u32..400).prop_map(|(at, entries)| {
        let mut specific = [0; 24];
        specific[..8].copy_from_slice(&at.to_le_bytes());
        specific[8..12].copy_from_slice(&(entries * 10).to_le_bytes());
        specific
    });
    let seed = address().prop_map(|at| {
        let mut specific = [0; 24];
        specific[8..16].copy_from_slice(&at.to_le_bytes());
        specific
    });
    let entries = (0_u32..2000).prop_map(|entries| {
        let mut specific = [0; 24];
        specific[..4].copy_from_slice(&(entries * 10).to_le_bytes());
        specific
    });
    // Tags by chance, with few rules.
    let dif = any::<[u8; 24]>().prop_map(|mut specific| {
        specific[2] &= 0x0f;
        specific[3..8].fill(0);
        specific
    });
    prop_oneof![Just([0; 24]), record, seed, entries, dif, any::<[u8; 24]>()]
}

fn descriptor() -> impl Strategy<Value = Descriptor> {
    let opcode = prop_oneof![
        8 => prop::sample::select((0..=u8::MAX).map(Opcode).filter(|opcode| {
            crate::OPERATIONS.contains(*opcode) && *opcode != Opcode::BATCH
        }).collect::<Vec<_>>()),
        1 => any::<u8>().prop_map(Opcode),
    ];
    let flags = prop_oneof![
        4 => Just(Flags::empty()),
        2 => Just(BLOCK),
        1 => any::<u32>().prop_map(Flags::from_bits_retain),
        2 => (0_u32..24).prop_map(|bit| Flags::from_bits_retain(1 << bit)),
    ];
    (opcode, flags, address(), address(), size(), specific()).prop_map(
        |(opcode, flags, first, second, size, specific)| {
            let descriptor = Descriptor::of(opcode, first, second, size).with_flags(flags);
            descriptor.with_specific(&specific)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Whatever a descriptor says, it completes, and what is not the process's stays as it was.
    #[test]
    fn r78_any_descriptor_completes(
        descriptors in proptest::collection::vec(descriptor(), 1..24),
        contents in any::<[u8; 16]>(),
    ) {
        let host = Host::new();
        let mut scattered = Scattered::new(&host, &[]);
        let mut memory = scattered.memory();
        for piece in memory.bytes.chunks_mut(contents.len()) {
            piece.copy_from_slice(&contents[..piece.len()]);
        }
        scattered.load(&memory);
        let outside = [(0, 0x8_0000), (0xa_0000, 0x6_0000), (0x20_0000, 0x10_0000)];
        let before = outside.map(|(at, len)| host.bytes(at, len));
        for descriptor in &descriptors {
            // A page that is not the process's is never brought.
            let record = scattered.refusing(*descriptor);
            prop_assert_ne!(record.status(), Status::NONE, "{:x?}", descriptor);
        }
        // And from a batch.
        scattered.list(&descriptors);
        let batch = Descriptor::batch(LIST, u32::try_from(descriptors.len()).unwrap());
        prop_assert_ne!(scattered.refusing(batch).status(), Status::NONE);
        prop_assert!(outside.map(|(at, len)| host.bytes(at, len)) == before);
    }
}
