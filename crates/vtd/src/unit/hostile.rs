//! A guest that writes anything anywhere: no panic, no hang, nothing of the host's.

use palisade_pci::{Bar, Function};
use palisade_units::{Gpa, Iova};
use proptest::prelude::*;

use crate::VcmdLayout;
use crate::spec::command::{Command, TranslationTableMode};
use crate::spec::descriptor::InvDescriptor;
use crate::spec::register::{self as reg, REGISTERS};
use crate::testing::{FUNCTION, Rig, Setup, Space, pasid};

#[derive(Clone, Debug)]
enum Step {
    Write32(u64, u32),
    Write64(u64, u64),
    Block(u64, Vec<u8>),
    Read(u64, usize),
    /// Random words where the guest's tables are.
    Table(u64, u64),
    /// A descriptor with a plausible type.
    Descriptor([u64; 4]),
    Access(Option<u32>, u64),
    Reset,
}

fn a_register() -> impl Strategy<Value = u64> {
    let offsets: Vec<u64> = REGISTERS.iter().map(|register| register.offset).collect();
    prop_oneof![
        8 => proptest::sample::select(offsets),
        1 => (0_u64..0x1000).prop_map(|at| at * 4),
        1 => (0xe00_u64..0xe40).prop_map(|at| at & !7),
    ]
}

fn a_value() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        // Addresses and offsets that exist, with low bits of any kind.
        (0_u64..0x200, 0_u64..0x1000).prop_map(|(page, low)| 0x10_0000 + page * 4096 + low),
        (0_u64..0x4000).prop_map(|offset| offset * 16),
        (0_u32..32).prop_map(|bit| 1 << bit | 1 << 26),
    ]
}

fn a_step() -> impl Strategy<Value = Step> {
    let low = |value: u64| u32::try_from(value & 0xffff_ffff).unwrap();
    prop_oneof![
        4 => (a_register(), a_value()).prop_map(move |(at, value)| Step::Write32(at, low(value))),
        4 => (a_register(), a_value()).prop_map(|(at, value)| Step::Write64(at, value)),
        1 => (0_u64..0xfff, proptest::collection::vec(any::<u8>(), 0..300))
            .prop_map(|(at, bytes)| Step::Block(at * 4, bytes)),
        1 => (0_u64..0x1000, 0_usize..5000).prop_map(|(at, len)| Step::Read(at * 4, len)),
        4 => (0_u64..0x6_000, a_value()).prop_map(|(at, value)| Step::Table(at * 8, value)),
        4 => (any::<[u64; 4]>(), 0_u64..11, any::<bool>()).prop_map(|(words, kind, plain)| {
            let keep = if plain { 0x000f_ffff_ffff_0030 } else { !0xe0f };
            Step::Descriptor([words[0] & keep | kind, if plain { 0 } else { words[1] }, 0, 0])
        }),
        2 => (proptest::option::of(0_u32..70), any::<u64>())
            .prop_map(|(raw, at)| Step::Access(raw, at)),
        1 => Just(Step::Reset),
    ]
}

fn run(rig: &mut Rig, step: Step) {
    match step {
        // Misaligned and overlong ones are refused, which is an answer.
        Step::Write32(at, value) => {
            let _ = rig.unit.bar_write(Bar::Bar0, at, &value.to_le_bytes());
        }
        Step::Write64(at, value) => {
            let _ = rig.unit.bar_write(Bar::Bar0, at, &value.to_le_bytes());
        }
        Step::Block(at, bytes) => {
            let _ = rig.unit.bar_write(Bar::Bar0, at, &bytes);
        }
        Step::Read(at, len) => {
            let _ = rig.unit.bar_read(Bar::Bar0, at, &mut vec![0; len]);
        }
        Step::Table(offset, value) => rig.store(Gpa::new(0x10_0000 + offset), &[value]),
        Step::Descriptor(words) => {
            rig.enqueue(&[InvDescriptor::from_words(words)]);
            rig.ring();
            rig.write32(reg::FSTS, 1 << 4);
        }
        Step::Access(raw, at) => {
            let _ = rig.read(raw.map(pasid), Iova::new(at));
        }
        Step::Reset => rig.unit.reset(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn r78_no_sequence_of_accesses_panics_or_takes_more_than_the_quota(
        boots in any::<bool>(),
        older in any::<bool>(),
        steps in proptest::collection::vec(a_step(), 0..80),
    ) {
        let vcmd = if older { VcmdLayout::Older } else { VcmdLayout::Current };
        let mut rig = Rig::with(Setup { vcmd, quota: 8, ..Setup::default() });
        if boots {
            rig.boot();
            let space = Space::with_page(&mut rig, Iova::new(0x7000), 1);
            rig.bind(pasid(1), &space);
        }
        for step in steps {
            run(&mut rig, step);
            prop_assert!(rig.authority.outstanding() <= 8);
            for entry in rig.iommu.audit() {
                prop_assert_eq!(rig.authority.owner_of(entry.host_pasid), Some(entry.tenant));
            }
        }
        // Whatever it did, the next guest finds a unit that works.
        rig.unit.reset();
        prop_assert_eq!(rig.authority.outstanding(), 1);
        rig.store(Gpa::new(0x10_0000), &vec![0; 0x3_0000]);
        rig.boot();
        let at = Iova::new(0x7f00_0000_0000);
        let space = Space::with_page(&mut rig, at, 0x600d);
        rig.bind(pasid(3), &space);
        prop_assert_eq!(rig.read(Some(pasid(3)), at), Ok(0x600d));
    }
}

#[test]
fn accesses_that_no_register_takes_are_refused() {
    let rig = Rig::new();
    let write = |bar, at, len| rig.unit.bar_write(bar, at, &vec![0; len]);
    assert!(write(Bar::Bar0, 0, 2).is_err());
    assert!(write(Bar::Bar0, 2, 4).is_err());
    assert!(write(Bar::Bar0, reg::BAR_LEN_BYTES, 4).is_err());
    assert!(write(Bar::Bar0, u64::MAX - 3, 8).is_err());
    assert!(write(Bar::Bar1, 0, 4).is_err());
    assert!(write(Bar::Bar0, 0, 4096).is_ok());
    let mut whole = vec![0xaa; 16384];
    assert!(rig.unit.bar_read(Bar::Bar0, 0, &mut whole).is_ok());
    assert!(whole[0x2000..].iter().all(|byte| *byte == 0));
}

/// Faults and page requests come from engines while the guest works on its registers.
#[test]
fn r42_engines_and_the_guest_do_not_wait_for_each_other() {
    use palisade_units::Access;
    use std::sync::atomic::{AtomicBool, Ordering};

    let mut rig = Rig::booted();
    rig.set_page_request_queue(0);
    let space = Space::new(&mut rig);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for raw in 1..=2 {
            let mut port = rig.port();
            let stop = &stop;
            scope.spawn(move || {
                let by = Rig::asking(pasid(raw));
                let at = Iova::new(0x5000);
                while !stop.load(Ordering::Relaxed) {
                    let _ = port.read(by, at, &mut [0; 8]);
                    let _ = port.request_page(by, at, Access::READ, Box::new(|_| {}));
                }
            });
        }
        for round in 0..300 {
            let raw = 1 + round % 2;
            rig.bind(pasid(raw), &space);
            if round % 16 == 0 {
                rig.write32(reg::GCMD, Command::QUEUED_INVALIDATION_ENABLE.bits());
                rig.set_root_table(TranslationTableMode::Scalable);
                rig.command(Command::TRANSLATION_ENABLE);
            }
            rig.unbind(pasid(raw));
            rig.write64(reg::PQH, rig.read64(reg::PQT));
            rig.write32(reg::PRS, 3);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(rig.container.bound(FUNCTION).len(), 0);
    assert_eq!(rig.handle.outstanding_page_requests(), 0);
}
