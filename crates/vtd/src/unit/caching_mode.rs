//! A unit that is not told of new entries (VT-d §6.1: CM clear).

use palisade_iommu::{DmaError, PasidSupport, Requester, Sharing};
use palisade_units::{Bdf, HostPasid, Iova};
use palisade_vfio::SpaceKey;

use crate::CachingMode;
use crate::spec::capability::{CAPABILITIES, Capabilities};
use crate::spec::command::TranslationTableMode;
use crate::spec::pasid_table::PasidEntry;
use crate::spec::register as reg;
use crate::testing::{FUNCTION, Rig, Setup, Space, all_flags, first_stage, pasid};

const AT: Iova = Iova::new(0x7f12_3456_7000);

fn without() -> Rig {
    let mut rig = Rig::with(Setup {
        caching_mode: CachingMode::Off,
        ..Setup::default()
    });
    rig.boot();
    rig
}

fn is_bound(rig: &Rig, raw: u32) -> bool {
    let mut bound = rig.container.bound(FUNCTION).into_iter();
    bound.any(|(key, _)| key == SpaceKey::Pasid(pasid(raw)))
}

#[test]
fn cap_cm_is_clear_and_nothing_else_differs() {
    let capabilities = Capabilities::from_bits(without().read64(reg::CAP));
    assert_eq!(capabilities, CAPABILITIES.with_caching_mode(false));
}

#[test]
fn r41_an_entry_that_was_not_there_is_found_when_it_is_needed() {
    let mut rig = without();
    let space = Space::with_page(&mut rig, AT, 0x600d);
    assert!(rig.read(Some(pasid(1)), AT).is_err());
    assert_eq!(rig.take_record().unwrap().reason().get(), 0x51);
    rig.set_entry(pasid(1), first_stage(&space));
    assert!(!is_bound(&rig, 1), "nobody told of it, or asked");
    assert_eq!(rig.read(Some(pasid(1)), AT), Ok(0x600d));
    assert!(is_bound(&rig, 1));
    // Others have no entry still.
    assert!(rig.read(Some(pasid(2)), AT).is_err());
    assert_eq!(rig.take_record().unwrap().reason().get(), 0x59);
    assert_eq!(rig.read32(reg::FSTS) & 0xff, 0);
}

#[test]
fn r41_in_caching_mode_an_entry_that_was_not_there_is_cached_as_that() {
    let mut rig = Rig::booted();
    let space = Space::with_page(&mut rig, AT, 0x600d);
    rig.set_entry(pasid(1), first_stage(&space));
    assert!(rig.read(Some(pasid(1)), AT).is_err());
    assert!(!is_bound(&rig, 1));
    rig.tell_of(pasid(1));
    assert_eq!(rig.read(Some(pasid(1)), AT), Ok(0x600d));
}

#[test]
fn r41_an_entry_that_was_there_stays_until_it_is_invalidated() {
    let mut rig = without();
    let space = Space::with_page(&mut rig, AT, 0x600d);
    rig.set_entry(pasid(1), first_stage(&space));
    assert_eq!(rig.read(Some(pasid(1)), AT), Ok(0x600d));
    rig.set_entry(pasid(1), PasidEntry::not_present());
    assert_eq!(rig.read(Some(pasid(1)), AT), Ok(0x600d), "cached");
    rig.tell_of(pasid(1));
    assert!(rig.read(Some(pasid(1)), AT).is_err());
    assert!(!is_bound(&rig, 1));
}

#[test]
fn r41_a_whole_function_is_found_when_it_is_needed() {
    let mut rig = Rig::with(Setup {
        caching_mode: CachingMode::Off,
        ..Setup::default()
    });
    // Translation is on before the guest has a context entry for the function.
    rig.set_root_table(TranslationTableMode::Scalable);
    rig.enable_queue();
    rig.command(crate::spec::command::Command::TRANSLATION_ENABLE);
    assert!(rig.read(None, AT).is_err());
    let space = Space::with_page(&mut rig, AT, 0x600d);
    rig.set_context(FUNCTION, all_flags());
    rig.set_entry(pasid(0), first_stage(&space));
    assert_eq!(rig.read(None, AT), Ok(0x600d));
}

/// On a shared parent a slice's driver names its PASID before any request is made with it.
#[test]
fn r19_mediation_finds_the_entry_that_a_number_needs() {
    let mut rig = without();
    let slice = Bdf::new(0, 0x12, 0);
    let parent = rig
        .iommu
        .add_function(Bdf::new(0x6b, 0, 0), PasidSupport::Width(20))
        .unwrap();
    rig.set_context(slice, all_flags());
    rig.attach(slice, parent, Sharing::Mediated);
    let translated = |rig: &Rig, raw| {
        let hold = rig.container.translate(slice, pasid(raw));
        hold.map(|hold| hold.pasid()).map_err(|error| error.errno())
    };
    assert_eq!(translated(&rig, 1), Err(2), "ENOENT");
    let space = Space::with_page(&mut rig, AT, 0x600d);
    rig.set_entry(pasid(1), first_stage(&space));
    let host: Result<HostPasid, i32> = translated(&rig, 1);
    assert!(host.is_ok());
    assert_eq!(translated(&rig, 2), Err(2), "others are none of its");
}

/// Engines serve other tenants too, and do not wait for what this one's guest has its unit do.
#[test]
fn r67_a_request_is_made_again_where_the_unit_is_at_work() {
    let mut rig = without();
    let space = Space::with_page(&mut rig, AT, 0x600d);
    rig.set_entry(pasid(1), first_stage(&space));
    let work = rig.unit.work();
    let read = rig.read(Some(pasid(1)), AT);
    assert!(
        matches!(read, Err(DmaError::Later { at: AT, .. })),
        "{read:?}"
    );
    drop(work);
    assert_eq!(rig.read32(reg::FSTS), 0, "no fault");
    assert_eq!(rig.read(Some(pasid(1)), AT), Ok(0x600d));
}

/// Of two slices on one parent, the second may be the one whose entry a request lacks.
#[test]
fn r41_each_slice_that_may_use_a_pasid_is_asked_for_its_entry() {
    let mut rig = without();
    let slices = [0x12, 0x13].map(|device| Bdf::new(0, device, 0));
    let parent = rig
        .iommu
        .add_function(Bdf::new(0x6b, 0, 0), PasidSupport::Width(20))
        .unwrap();
    for slice in slices {
        rig.attach(slice, parent.clone(), Sharing::Mediated);
    }
    // The number is known by another function; of the slices the second alone has a context entry.
    let space = Space::with_page(&mut rig, AT, 0x600d);
    rig.bind(pasid(1), &space);
    rig.set_context(slices[1], all_flags());
    let hold = rig.container.translate(FUNCTION, pasid(1)).unwrap();
    let by = Requester::new(Some(hold.pasid().into()));
    let mut bytes = [0; 8];
    assert_eq!(parent.port().read(by, AT, &mut bytes), Ok(()));
    assert_eq!(u64::from_le_bytes(bytes), 0x600d);
}
