//! Descriptors of all operations, by chance, that the device has no reason to refuse.

use proptest::prelude::*;

use super::model::{Memory, with_fields};
use super::scattered::{BASE, PAGES};
use crate::spec::{
    CreateDelta, Descriptor, DifBlock, DifDestination, DifFields, DifSource, DifTags, Flags, Opcode,
};

/// Each buffer of a descriptor has eight pages for itself.
const ZONE: u64 = 8 << 12;
pub(crate) const ONE: u64 = BASE;
pub(crate) const OTHER: u64 = BASE + ZONE;
pub(crate) const THIRD: u64 = BASE + 2 * ZONE;
const SEED: u64 = BASE + 3 * ZONE;

/// A descriptor, and what must be in memory for it to make sense.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) descriptor: Descriptor,
    pub(crate) there: Vec<(u64, Vec<u8>)>,
}

impl Operation {
    fn of(descriptor: Descriptor) -> Self {
        Self {
            descriptor,
            there: Vec::new(),
        }
    }

    pub(crate) fn prepare(&self, memory: &mut Memory) {
        for (at, bytes) in &self.there {
            memory.put(*at, bytes);
        }
    }
}

/// Memory of which the second zone is the first with some bytes changed.
pub(crate) fn memory() -> impl Strategy<Value = Memory> {
    let zone = usize::try_from(ZONE).unwrap();
    let changes = proptest::collection::vec((0..zone, any::<u8>()), 0..40);
    (any::<u8>(), changes).prop_map(move |(salt, changes)| {
        let byte = |i: usize| (i * 7 + i / 251 + usize::from(salt)).to_le_bytes()[0];
        let mut bytes: Vec<u8> = (0..PAGES * 4096).map(byte).collect();
        bytes.copy_within(0..zone, zone);
        for (at, byte) in changes {
            bytes[zone + at] = byte;
        }
        Memory { base: BASE, bytes }
    })
}

pub(crate) fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![copies(), comparisons(), fills(), deltas(), crcs(), difs()]
}

fn place() -> impl Strategy<Value = u64> {
    prop_oneof![
        0_u64..0x4000,
        (0_u64..4).prop_map(|page| page * 4096 + 4090)
    ]
}

fn len() -> impl Strategy<Value = u32> {
    prop_oneof![1_u32..100, 1_u32..0x3800]
}

fn copies() -> impl Strategy<Value = Operation> {
    let dualcast = (place(), place(), 0_u64..4, len()).prop_map(|(from, to, page, len)| {
        let third = THIRD + page * 4096 + to % 4096;
        Descriptor::dualcast(ONE + from, OTHER + to, third, len)
    });
    prop_oneof![
        (place(), place(), len()).prop_map(|(from, to, len)| Descriptor::memory_move(
            ONE + from,
            OTHER + to,
            len
        )),
        (place(), 0_u64..0x1800, len()).prop_map(|(from, by, len)| Descriptor::memory_move(
            ONE + from,
            ONE + from + by,
            len
        )),
        dualcast,
        (place(), len()).prop_map(|(at, len)| Descriptor::cache_flush(ONE + at, len)),
    ]
    .prop_map(Operation::of)
}

fn comparisons() -> impl Strategy<Value = Operation> {
    let compare = (place(), prop_oneof![4 => Just(0), 1 => 0_u64..9], len());
    prop_oneof![
        compare.prop_map(|(at, by, len)| Descriptor::compare(ONE + at, OTHER + at + by, len)),
        (place(), any::<u64>(), len()).prop_map(|(at, pattern, len)| Descriptor::compare_pattern(
            ONE + at,
            pattern,
            len
        )),
    ]
    .prop_map(Operation::of)
}

fn fills() -> impl Strategy<Value = Operation> {
    (any::<u128>(), any::<bool>(), place(), len()).prop_map(|(pattern, wide, at, len)| {
        let low = u64::try_from(pattern >> 64).unwrap();
        Operation::of(if wide {
            Descriptor::memory_fill_wide(pattern, THIRD + at, len)
        } else {
            Descriptor::memory_fill(low, THIRD + at, len)
        })
    })
}

fn deltas() -> impl Strategy<Value = Operation> {
    let words = 1_u32..0x700;
    // The least room, or so much that all has room.
    let room = prop_oneof![1 => 8_u32..20, 3 => Just(0x800)];
    let create = (0_u64..0x800, words.clone(), 0_u64..0x1000, room);
    let create = create.prop_map(|(at, words, record, room)| {
        let fields = CreateDelta {
            record: THIRD + record,
            max_bytes: room * 10,
            ..CreateDelta::default()
        };
        let descriptor = Descriptor::create_delta(ONE + at * 8, OTHER + at * 8, words * 8, fields);
        Operation::of(descriptor)
    });
    // Steps from entry to entry: most are to the next word, few are not allowed.
    let steps = prop_oneof![6 => Just(1_u16), 3 => 1_u16..60, 1 => 0_u16..500];
    let steps = proptest::collection::vec((steps, any::<u64>()), 1..600);
    let apply =
        (0_u64..0x800, words, 0_u64..0x1000, steps).prop_map(|(at, words, record, steps)| {
            let mut offset = 0_u16;
            let mut delta = Vec::new();
            for (step, data) in steps {
                delta.extend(offset.to_le_bytes());
                delta.extend(data.to_le_bytes());
                offset = offset.saturating_add(step);
            }
            let len = u32::try_from(delta.len()).unwrap();
            Operation {
                descriptor: Descriptor::apply_delta(THIRD + record, len, ONE + at * 8, words * 8),
                there: vec![(THIRD + record, delta)],
            }
        });
    prop_oneof![create, apply]
}

fn crcs() -> impl Strategy<Value = Operation> {
    let flags = prop_oneof![
        Just(Flags::empty()),
        Just(Flags::BYPASS_CRC_INVERSION),
        Just(Flags::BYPASS_DATA_REFLECTION),
        Just(Flags::BYPASS_CRC_INVERSION | Flags::BYPASS_DATA_REFLECTION),
    ];
    let seed = prop_oneof![
        any::<u32>().prop_map(Err),
        (0_u64..0x1000).prop_map(|word| Ok(SEED + word * 4))
    ];
    (place(), place(), len(), flags, seed, any::<bool>()).prop_map(
        |(from, to, len, flags, seed, copy)| {
            let descriptor = if copy {
                Descriptor::copy_crc(ONE + from, OTHER + to, len)
            } else {
                Descriptor::crc(ONE + from, len)
            };
            let descriptor = match seed {
                Ok(at) => descriptor.with_crc_seed_at(at),
                Err(seed) => descriptor.with_crc_seed(seed),
            };
            Operation::of(descriptor.with_flags(flags))
        },
    )
}

fn tags() -> impl Strategy<Value = DifTags> {
    let ones = |bits: u32| prop_oneof![3 => Just(0), 1 => Just(u32::MAX >> (32 - bits)), 3 => any::<u32>()];
    (ones(32), ones(16), ones(16)).prop_map(|(reference, mask, application)| DifTags {
        reference,
        application_mask: u16::try_from(mask & 0xffff).unwrap(),
        application: u16::try_from(application & 0xffff).unwrap(),
    })
}

fn difs() -> impl Strategy<Value = Operation> {
    let opcode = prop::sample::select(vec![
        Opcode::DIF_CHECK,
        Opcode::DIF_INSERT,
        Opcode::DIF_STRIP,
        Opcode::DIF_UPDATE,
    ]);
    let shape = (
        opcode,
        prop::sample::select(DifBlock::ALL.to_vec()),
        1_u32..4,
    );
    let rules = (any::<u8>(), any::<u8>(), 0_u8..4);
    // A byte of the source that is changed, or not.
    let damage = prop_oneof![2 => Just(None), 1 => any::<(u16, u8)>().prop_map(Some)];
    (shape, rules, tags(), tags(), place(), place(), damage).prop_map(
        |((opcode, block, count), (source, destination, guards), from, to, at, out, damage)| {
            let inserts = opcode == Opcode::DIF_INSERT;
            let writes = inserts || opcode == Opcode::DIF_UPDATE;
            let allowed = match opcode {
                Opcode::DIF_UPDATE => DifDestination::all(),
                _ => DifDestination::APPLICATION_INCREASES | DifDestination::REFERENCE_FIXED,
            };
            let mut fields = DifFields::of(block);
            fields.flags |= guards << 2;
            if !inserts {
                fields.source_flags = DifSource::from_bits_retain(source).bits();
                fields.source = from;
            }
            if writes {
                fields.destination_flags = destination & allowed.bits();
                fields.destination = to;
            }
            let data: Vec<u8> = (0..block.bytes() * count)
                .map(|i| (i * 5 + i / 259).to_le_bytes()[0])
                .collect();
            let mut bytes = if inserts {
                data
            } else {
                with_fields(&data, &fields)
            };
            if let Some((at, by)) = damage {
                let at = usize::from(at) % bytes.len();
                bytes[at] ^= by;
            }
            let size = u32::try_from(bytes.len()).unwrap();
            let (from, to) = (
                ONE + at,
                if opcode == Opcode::DIF_CHECK {
                    0
                } else {
                    OTHER + out
                },
            );
            let descriptor = Descriptor::of(opcode, from, to, size)
                .with_specific(zerocopy::IntoBytes::as_bytes(&fields));
            Operation {
                descriptor,
                there: vec![(from, bytes)],
            }
        },
    )
}
