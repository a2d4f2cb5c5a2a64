//! Linux 6.1. The device's domain is attached before translation is on: PASID entry first, context entry
//! after it. Page requests are set up where PASIDs are used, that is in scalable mode alone.

use super::*;
use crate::VcmdLayout;
use crate::testing::Setup;

/// Until the root table is in use: the same in every mode.
fn starts_up(kernel: &mut Kernel<'_>) {
    kernel.detects_the_unit();
    kernel.maps_the_registers();
    kernel.clears_old_faults();
    kernel.takes_the_old_queue_down();
    kernel.sets_the_queue_up();
}

fn has_its_interrupts(kernel: &mut Kernel<'_>) {
    if kernel.mode == Mode::Scalable {
        kernel.sets_page_requests_up();
    }
    kernel.sets_the_fault_interrupt();
}

/// `sm_on`: the first stage of the device's DMA mappings, then its context entry.
fn attaches_scalable(kernel: &mut Kernel<'_>, space: Option<&Space>) {
    kernel.sets_the_device_entry(space);
    let domain = if space.is_some() {
        DEVICE_DOMAIN
    } else {
        DEFAULT_DOMAIN
    };
    kernel.sets_a_scalable_context(domain);
}

/// The entry goes: it stays as it was but for P until nobody has it, then it is cleared. With the
/// faults of what is still under way unreported, and device TLBs left alone in caching mode.
fn unbinds(kernel: &mut Kernel<'_>, raw: u32) {
    kernel.changes_an_entry(raw, |word| word & !1);
    kernel.submits_each(&[
        InvDescriptor::pasid_cache(PasidCacheScope::Pasid(DEFAULT_DOMAIN, pasid(raw))),
        InvDescriptor::pasid_iotlb(DEFAULT_DOMAIN, pasid(raw), PasidIotlbScope::All),
    ]);
    kernel.changes_an_entry(raw, |_| 0);
}

#[test]
fn r6_scalable_mode() {
    let mut rig = Rig::new();
    let mut kernel = Kernel::starts(&mut rig, Mode::Scalable);
    starts_up(&mut kernel);
    assert!(!kernel.finds_translation_on());
    kernel.sets_the_root();
    has_its_interrupts(&mut kernel);
    let dma = Space::with_page(kernel.rig, BUFFER, 0xd1a);
    attaches_scalable(&mut kernel, Some(&dma));
    kernel.on();
    assert_eq!(kernel.device_reads(BUFFER), Some(0xd1a));

    let process = Space::with_page(kernel.rig, BUFFER, 0x9_1055);
    kernel.binds(1, &process);
    assert_eq!(kernel.process_reads(1, BUFFER), Some(0x9_1055));
    kernel.has_seen_no_fault();
    unbinds(&mut kernel, 1);
    assert_eq!(kernel.process_reads(1, BUFFER), None);
    kernel.handles_one_fault(0x59);
    assert_eq!(kernel.device_reads(BUFFER), Some(0xd1a));
}

/// With virtual commands the kernel takes every PASID from the unit.
#[test]
fn r55_scalable_mode_with_pasids_from_the_host() {
    let mut rig = Rig::with(Setup {
        vcmd: VcmdLayout::Current,
        ..Setup::default()
    });
    let mut kernel = Kernel::starts(&mut rig, Mode::Scalable);
    starts_up(&mut kernel);
    let extended = kernel.rig.read64(reg::ECAP);
    assert_eq!(extended >> 44 & 1, 1, "VCS");
    assert_eq!(kernel.rig.read64(0xe30) & 1, 1, "VCCAP.PAS");
    kernel.sets_the_root();
    has_its_interrupts(&mut kernel);
    attaches_scalable(&mut kernel, None);
    kernel.on();

    kernel.rig.write64(0xe00, 1);
    let response = kernel.rig.read64(0xe10);
    assert_eq!(response & 0xff, 0, "not in progress, success");
    let raw = u32::try_from(response >> 16 & 0xf_ffff).unwrap();
    let process = Space::with_page(kernel.rig, BUFFER, 0x9_1055);
    kernel.binds(raw, &process);
    assert_eq!(kernel.process_reads(raw, BUFFER), Some(0x9_1055));
    unbinds(&mut kernel, raw);
    kernel.rig.write64(0xe00, 2 | u64::from(raw) << 16);
    assert_eq!(kernel.rig.read64(0xe10), 0);
    kernel.has_seen_no_fault();
}

#[test]
fn r6_legacy_mode() {
    let mut rig = Rig::new();
    let mut kernel = Kernel::starts(&mut rig, Mode::Legacy);
    starts_up(&mut kernel);
    assert!(!kernel.finds_translation_on());
    kernel.sets_the_root();
    has_its_interrupts(&mut kernel);
    let domain = kernel.maps_a_buffer(0xd1a);
    kernel.sets_a_legacy_context(domain);
    kernel.on();
    kernel.flushes_a_page(BUFFER);
    assert_eq!(kernel.device_reads(BUFFER), Some(0xd1a));
    kernel.has_seen_no_fault();
    kernel.unmaps(domain, BUFFER);
    kernel.flushes_a_page(BUFFER);
    assert_eq!(kernel.device_reads(BUFFER), None);
    kernel.handles_one_fault(0x6);
}

#[test]
fn r6_pass_through() {
    for mode in [Mode::Scalable, Mode::Legacy] {
        let mut rig = Rig::new();
        let mut kernel = Kernel::starts(&mut rig, mode);
        starts_up(&mut kernel);
        kernel.sets_the_root();
        has_its_interrupts(&mut kernel);
        match mode {
            Mode::Scalable => attaches_scalable(&mut kernel, None),
            Mode::Legacy => kernel.sets_a_legacy_context(Domain::PassThrough),
        }
        kernel.on();
        let buffer = kernel.rig.frames(1);
        kernel.rig.store(buffer, &[0xd1a]);
        assert_eq!(kernel.device_reads(Iova::new(buffer.get())), Some(0xd1a));
        kernel.has_seen_no_fault();
    }
}

/// A kernel that was started by another one, which did not shut the unit down.
#[test]
fn r6_a_kernel_that_finds_translation_on_turns_it_off() {
    for mode in [Mode::Scalable, Mode::Legacy] {
        let mut rig = Rig::new();
        before(&mut rig, mode, 0x01d);
        let mut kernel = Kernel::starts(&mut rig, mode);
        starts_up(&mut kernel);
        assert!(kernel.finds_translation_on());
        kernel.off();
        kernel.sets_the_root();
        has_its_interrupts(&mut kernel);
        comes_up_again(&mut kernel, 0x2e3);
        kernel.on();
        assert_eq!(kernel.device_reads(BUFFER), Some(0x2e3));
        kernel.has_seen_no_fault();
    }
}

/// A kernel that saves what the crashed one left: the device goes on with the old tables, under a new root,
/// until its driver takes it.
#[test]
fn r6_a_kernel_after_a_crash_keeps_the_tables_of_the_old_one() {
    for mode in [Mode::Scalable, Mode::Legacy] {
        let mut rig = Rig::new();
        before(&mut rig, mode, 0x01d);
        let mut kernel = Kernel::starts(&mut rig, mode);
        starts_up(&mut kernel);
        assert!(kernel.finds_translation_on());
        kernel.copies_the_old_tables();
        kernel.sets_the_root();
        assert_eq!(kernel.device_reads(BUFFER), Some(0x01d));
        has_its_interrupts(&mut kernel);
        // The driver is probed: what the copied entry may have left in caches goes, then the new one comes.
        let old = match mode {
            Mode::Scalable => DomainId::new(0),
            Mode::Legacy => DEVICE_DOMAIN,
        };
        kernel.submits_each(&[of_the_device(old), of_the_domain(old)]);
        comes_up_again(&mut kernel, 0x2e3);
        assert_eq!(kernel.device_reads(BUFFER), Some(0x2e3));
        kernel.has_seen_no_fault();
    }
}

/// Another kernel's life, up to the point at which it is cut off.
fn before(rig: &mut Rig, mode: Mode, value: u64) {
    let mut kernel = Kernel::starts(rig, mode);
    starts_up(&mut kernel);
    kernel.sets_the_root();
    has_its_interrupts(&mut kernel);
    comes_up_again(&mut kernel, value);
    kernel.on();
    assert_eq!(kernel.device_reads(BUFFER), Some(value));
}

fn comes_up_again(kernel: &mut Kernel<'_>, value: u64) {
    match kernel.mode {
        Mode::Scalable => {
            let dma = Space::with_page(kernel.rig, BUFFER, value);
            attaches_scalable(kernel, Some(&dma));
        }
        Mode::Legacy => {
            let domain = kernel.maps_a_buffer(value);
            kernel.sets_a_legacy_context(domain);
        }
    }
}
