//! Virtual commands, from the guest's registers to the host's authority.

use palisade_ioasid::{PasidRange, Quota};
use palisade_units::{GuestPasid, HostPasid, TenantId};

use crate::VcmdLayout;
use crate::spec::virtual_command::{Layout, VirtualCommand, VirtualResponse};
use crate::testing::{Rig, Setup, Space, pasid};

const LAYOUTS: [(VcmdLayout, Layout); 2] = [
    (VcmdLayout::Current, Layout::Current),
    (VcmdLayout::Older, Layout::Older),
];

fn rig(vcmd: VcmdLayout) -> Rig {
    // The function's own default PASID, and three for the guest.
    Rig::with(Setup {
        vcmd,
        quota: 4,
        ..Setup::default()
    })
}

fn allocate(rig: &Rig, layout: Layout) -> VirtualResponse {
    let command = layout.encode_command(VirtualCommand::AllocatePasid);
    rig.write64(layout.command_offset(), command);
    layout.decode_allocation(rig.read64(layout.response_offset()))
}

fn free(rig: &Rig, layout: Layout, pasid: u32) -> VirtualResponse {
    let pasid = GuestPasid::new(pasid).unwrap();
    let command = layout.encode_command(VirtualCommand::FreePasid(pasid));
    rig.write64(layout.command_offset(), command);
    layout.decode_free(rig.read64(layout.response_offset()))
}

fn number(response: VirtualResponse) -> u32 {
    match response {
        VirtualResponse::Pasid(pasid) => pasid.get(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn r9_every_allocation_and_free_reaches_the_ledger() {
    for (vcmd, layout) in LAYOUTS {
        let rig = rig(vcmd);
        let before = rig.authority.ledger().len();
        let first = number(allocate(&rig, layout));
        let second = number(allocate(&rig, layout));
        let of_guest = |rig: &Rig| {
            let ledger = rig.authority.ledger();
            let guests = ledger.iter().filter_map(|entry| {
                let guest = entry.guest?;
                assert_eq!(
                    guest.get(),
                    entry.pasid.get(),
                    "the guest's number is the host's"
                );
                Some(guest.get())
            });
            guests.collect::<Vec<_>>()
        };
        assert_eq!(of_guest(&rig), [first, second]);
        assert_eq!(free(&rig, layout, first), VirtualResponse::Done);
        assert_eq!(of_guest(&rig), [second]);
        assert_eq!(free(&rig, layout, second), VirtualResponse::Done);
        assert_eq!(rig.authority.ledger().len(), before);
    }
}

#[test]
fn r57_beyond_the_quota_there_is_no_pasid_and_one_that_is_freed_can_be_had_again() {
    for (vcmd, layout) in LAYOUTS {
        let rig = rig(vcmd);
        let numbers = [(); 3].map(|()| number(allocate(&rig, layout)));
        assert_eq!(allocate(&rig, layout), VirtualResponse::NoPasid);
        assert_eq!(free(&rig, layout, numbers[1]), VirtualResponse::Done);
        assert_eq!(number(allocate(&rig, layout)), numbers[1]);
    }
}

#[test]
fn r57_freeing_what_is_not_ones_own_has_no_effect() {
    for (vcmd, layout) in LAYOUTS {
        let rig = rig(vcmd);
        let other = rig
            .authority
            .create_set(TenantId::new(8), Quota::Exactly(4))
            .unwrap();
        let foreign = other.alloc(PasidRange::ALL).unwrap();
        assert_eq!(
            free(&rig, layout, foreign.get()),
            VirtualResponse::InvalidPasid
        );
        assert_eq!(rig.authority.owner_of(foreign), Some(TenantId::new(8)));
        // Nor is what the host took for the function itself.
        let hidden = rig.container.default_hold(crate::testing::FUNCTION);
        let hidden = hidden.unwrap().pasid();
        assert_eq!(
            free(&rig, layout, hidden.get()),
            VirtualResponse::InvalidPasid
        );
        assert_eq!(rig.authority.owner_of(hidden), Some(TenantId::new(7)));
        for nobodys in [0, 0xfffff] {
            assert_eq!(free(&rig, layout, nobodys), VirtualResponse::InvalidPasid);
        }
    }
}

#[test]
fn r56_undefined_commands_say_so_and_the_null_command_does_nothing() {
    for (vcmd, layout) in LAYOUTS {
        let rig = rig(vcmd);
        let before = rig.authority.outstanding();
        for command in (3_u64..=255).chain([0x1_0000_0007]) {
            rig.write64(layout.command_offset(), command);
            assert_eq!(rig.read64(layout.response_offset()), 1 << 1, "{command:#x}");
        }
        rig.write64(layout.command_offset(), 0);
        assert_eq!(rig.read64(layout.response_offset()), 0);
        assert_eq!(rig.authority.outstanding(), before);
    }
}

#[test]
fn r55_a_unit_without_them_takes_no_commands() {
    let rig = rig(VcmdLayout::Off);
    let before = rig.authority.outstanding();
    for layout in [Layout::Current, Layout::Older] {
        rig.write64(layout.command_offset(), 1);
        assert_eq!(rig.read64(layout.response_offset()), 0);
    }
    assert_eq!(rig.authority.outstanding(), before);
}

/// R51: allocate, bind, free, and access in between.
#[test]
fn r4_r9_allocating_gives_no_access_and_freeing_takes_it_away() {
    let mut rig = rig(VcmdLayout::Current);
    rig.boot();
    let at = palisade_units::Iova::new(0x7000_0000);
    let raw = number(allocate(&rig, Layout::Current));
    assert!(rig.read(Some(pasid(raw)), at).is_err(), "nothing is bound");
    let space = Space::with_page(&mut rig, at, 0x1111);
    rig.bind(pasid(raw), &space);
    assert_eq!(rig.read(Some(pasid(raw)), at), Ok(0x1111));
    let host = rig
        .container
        .translate(crate::testing::FUNCTION, pasid(raw));
    assert_eq!(host.unwrap().pasid(), HostPasid::new(raw).unwrap());
    assert_eq!(free(&rig, Layout::Current, raw), VirtualResponse::Done);
    assert!(rig.read(Some(pasid(raw)), at).is_err());
}

#[test]
fn r33_a_reset_gives_back_what_the_guest_took() {
    use palisade_pci::Function;

    let rig = rig(VcmdLayout::Current);
    let before = rig.authority.outstanding();
    for _ in 0..3 {
        number(allocate(&rig, Layout::Current));
    }
    rig.unit.reset();
    assert_eq!(rig.authority.outstanding(), before);
    for _ in 0..3 {
        number(allocate(&rig, Layout::Current));
    }
}
