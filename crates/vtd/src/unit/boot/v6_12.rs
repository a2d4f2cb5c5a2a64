//! Linux 6.12. A device gets its context entry when it is found, with no PASID entry behind it yet; then
//! its domain is attached. Entries of copied tables are taken away before they are replaced. Device TLBs
//! are told, too, once translation is on.

use super::*;

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

/// Found, then attached.
fn attaches(kernel: &mut Kernel<'_>, value: Option<u64>) -> Domain {
    match kernel.mode {
        Mode::Scalable => {
            kernel.sets_a_scalable_context(DomainId::new(0));
            let space = value.map(|value| Space::with_page(kernel.rig, BUFFER, value));
            kernel.sets_the_device_entry(space.as_ref());
            Domain::PassThrough
        }
        Mode::Legacy => {
            let domain = match value {
                None => Domain::PassThrough,
                Some(value) => kernel.maps_a_buffer(value),
            };
            kernel.sets_a_legacy_context(domain);
            domain
        }
    }
}

/// The entry goes, with what device TLBs have of it, and page requests are drained: a fence, what was
/// said before once more, and a wait for the queue of page requests.
fn unbinds(kernel: &mut Kernel<'_>, raw: u32) {
    let gone = pasid(raw);
    kernel.changes_an_entry(raw, |word| word & !1);
    kernel.submits_each(&[
        InvDescriptor::pasid_cache(PasidCacheScope::Pasid(DEFAULT_DOMAIN, gone)),
        InvDescriptor::pasid_iotlb(DEFAULT_DOMAIN, gone, PasidIotlbScope::All),
        InvDescriptor::pasid_dev_tlb(FUNCTION, gone, PageRange::ALL),
    ]);
    kernel.changes_an_entry(raw, |_| 0);
    kernel.drains_page_requests(gone);
}

#[test]
fn r6_scalable_mode() {
    let mut rig = Rig::new();
    let mut kernel = Kernel::starts(&mut rig, Mode::Scalable);
    starts_up(&mut kernel);
    assert!(!kernel.finds_translation_on());
    kernel.sets_the_root();
    has_its_interrupts(&mut kernel);
    attaches(&mut kernel, Some(0xd1a));
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

#[test]
fn r6_legacy_mode() {
    let mut rig = Rig::new();
    let mut kernel = Kernel::starts(&mut rig, Mode::Legacy);
    starts_up(&mut kernel);
    kernel.sets_the_root();
    has_its_interrupts(&mut kernel);
    let domain = attaches(&mut kernel, Some(0xd1a));
    kernel.on();
    assert_eq!(kernel.device_reads(BUFFER), Some(0xd1a));
    kernel.has_seen_no_fault();
    kernel.unmaps(domain, BUFFER);
    kernel.submits(&[
        drained(InvDescriptor::iotlb(IotlbScope::Pages(
            DEVICE_DOMAIN,
            PageRange::page(BUFFER),
            LeafHint::LeavesOnly,
        ))),
        InvDescriptor::dev_tlb(FUNCTION, PageRange::page(BUFFER)),
    ]);
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
        attaches(&mut kernel, None);
        kernel.on();
        let buffer = kernel.rig.frames(1);
        kernel.rig.store(buffer, &[0xd1a]);
        assert_eq!(kernel.device_reads(Iova::new(buffer.get())), Some(0xd1a));
        kernel.has_seen_no_fault();
    }
}

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
        attaches(&mut kernel, Some(0x2e3));
        kernel.on();
        assert_eq!(kernel.device_reads(BUFFER), Some(0x2e3));
        kernel.has_seen_no_fault();
    }
}

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
        kernel.tears_a_copied_context_down();
        attaches(&mut kernel, Some(0x2e3));
        assert_eq!(kernel.device_reads(BUFFER), Some(0x2e3));
        kernel.has_seen_no_fault();
    }
}

fn before(rig: &mut Rig, mode: Mode, value: u64) {
    let mut kernel = Kernel::starts(rig, mode);
    starts_up(&mut kernel);
    kernel.sets_the_root();
    has_its_interrupts(&mut kernel);
    attaches(&mut kernel, Some(value));
    kernel.on();
    assert_eq!(kernel.device_reads(BUFFER), Some(value));
}
