//! The fields, in the order of their bits.

/// One of the two registers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Register {
    Cap,
    Ecap,
}

/// A field of a register.
pub(crate) struct Field {
    pub(crate) register: Register,
    pub(crate) low: u32,
    pub(crate) width: u32,
    pub(crate) name: &'static str,
    pub(crate) says: &'static str,
    /// The test that shows it.
    pub(crate) test: &'static str,
}

const ABSENT: &str = "what_is_not_there_is_not_advertised";

const fn cap(
    low: u32,
    width: u32,
    name: &'static str,
    says: &'static str,
    test: &'static str,
) -> Field {
    Field {
        register: Register::Cap,
        low,
        width,
        name,
        says,
        test,
    }
}

const fn ecap(
    low: u32,
    width: u32,
    name: &'static str,
    says: &'static str,
    test: &'static str,
) -> Field {
    Field {
        register: Register::Ecap,
        ..cap(low, width, name, says, test)
    }
}

#[rustfmt::skip]
pub(crate) const FIELDS: &[Field] = &[
    cap(0, 3, "ND", "domain ids of 16 bits", "a_domain_selective_invalidation_covers_the_domain"),
    cap(4, 1, "RWBF", "no write buffers to flush", ABSENT),
    cap(5, 1, "PLMR", "no protected low memory", ABSENT),
    cap(6, 1, "PHMR", "no protected high memory", ABSENT),
    cap(7, 1, "CM", "caching mode: software tells of every new entry; clear where the configuration has it off", "r4_a_guest_entry_alone_gives_nothing_until_it_is_told_of"),
    cap(8, 5, "SAGAW", "second stages of three, four and five levels", "cap_sagaw_second_stages_of_three_to_five_levels_are_found"),
    cap(16, 6, "MGAW", "guest addresses of 57 bits", "r59_84h_beyond_the_second_stage_width"),
    cap(22, 1, "ZLR", "no zero-length reads of write-only pages", ABSENT),
    cap(24, 10, "FRO", "where the fault records are", "registers_are_sorted_aligned_and_apart"),
    cap(34, 4, "SSLPS", "2 MiB and 1 GiB pages of the second stage", "nested_and_pass_through_entries_are_bound"),
    cap(39, 1, "PSI", "invalidation by page", "linux_invalidates_pages_of_a_pasid"),
    cap(40, 8, "NFR", "256 fault records", "r67_a_storm_of_faults_fills_the_records_and_interrupts_once"),
    cap(48, 6, "MAMV", "ranges of an invalidation reach 1 GiB", "r40_an_invalidated_range_covers_what_was_asked_for"),
    cap(54, 1, "DWD", "writes are drained before a wait completes", "r39_no_write_lands_after_an_unbind_has_returned"),
    cap(55, 1, "DRD", "reads are drained before a wait completes", "r39_a_drain_waits_for_the_access_in_flight_and_for_no_later_one"),
    cap(56, 1, "FS1GP", "1 GiB pages of the first stage", "r37_pages_of_every_size_are_reached_through_the_cache"),
    cap(59, 1, "PI", "no posted interrupts", ABSENT),
    cap(60, 1, "FS5LP", "first stages of five levels", "r37_first_stages_of_four_and_five_levels_reach_the_page"),
    cap(61, 1, "ECMDS", "no enhanced commands", ABSENT),
    cap(62, 1, "ESIRTPS", "no interrupt remapping table to set", ABSENT),
    cap(63, 1, "ESRTPS", "setting the root table invalidates nothing", ABSENT),

    ecap(0, 1, "C", "structures are read coherently", "a_well_formed_entry_is_found"),
    ecap(1, 1, "QI", "queued invalidation", "r6_the_boot_sequence_of_linux"),
    ecap(2, 1, "DT", "device-TLB invalidations", "r41_a_device_tlb_invalidation_leaves_what_the_unit_keeps"),
    ecap(3, 1, "IR", "no interrupt remapping", ABSENT),
    ecap(4, 1, "EIM", "no x2APIC destinations", ABSENT),
    ecap(6, 1, "PT", "pass-through", "nested_and_pass_through_entries_are_bound"),
    ecap(7, 1, "SC", "snoop control: all accesses snoop, as asked for", "reserved_bits_of_a_pasid_entry_are_seen_and_ignored_ones_are_not"),
    ecap(8, 10, "IRO", "where the IOTLB registers are", "registers_are_sorted_aligned_and_apart"),
    ecap(20, 4, "MHMV", "no interrupt entries to invalidate", ABSENT),
    ecap(25, 1, "MTS", "no memory types", ABSENT),
    ecap(26, 1, "NEST", "nested translation", "nested_and_pass_through_entries_are_bound"),
    ecap(29, 1, "PRS", "page requests", "r62_a_page_request_is_queued_and_its_answer_reaches_the_device"),
    ecap(30, 1, "ERS", "no requests to execute", ABSENT),
    ecap(31, 1, "SRS", "privileged requests", "r59_r38_5dh_supervisor_request_disabled"),
    ecap(33, 1, "NWFS", "no no-write flag of translation requests", ABSENT),
    ecap(34, 1, "EAFS", "the extended accessed flag of a first stage", "ecap_eafs_the_extended_accessed_flag_is_set_where_the_entry_says_so"),
    ecap(35, 5, "PSS", "PASIDs of 20 bits", "r5_a_pasid_beyond_the_width_faults_and_is_not_bound"),
    ecap(40, 1, "PASID", "requests with a PASID", "r6_a_bare_metal_driver_copies_by_the_addresses_of_three_processes"),
    ecap(41, 1, "DIT", "device-TLB invalidations are not throttled", ABSENT),
    ecap(42, 1, "PDS", "a wait may drain page requests", "r65_a_reset_answers_what_is_open"),
    ecap(43, 1, "SMTS", "scalable mode", "r6_the_boot_sequence_of_linux"),
    ecap(44, 1, "VCS", "virtual commands: set where the configuration has them on", "r55_without_virtual_commands_their_registers_are_not_there"),
    ecap(45, 1, "SSADS", "accessed and dirty bits of the second stage", "ecap_ssads_second_stages_are_marked_where_the_entry_says_so"),
    ecap(46, 1, "SSTS", "second-stage translation in scalable mode", "a_second_stage_and_pass_through_are_found"),
    ecap(47, 1, "FSTS", "first-stage translation", "r3_the_device_reads_what_the_process_sees_also_after_later_changes"),
    ecap(48, 1, "SMPWCS", "page tables are walked coherently", "ecap_smpwcs_without_page_walk_snoop_nothing_can_be_marked"),
    ecap(49, 1, "RPS", "the context entry names the PASID of requests without one", "requests_without_a_pasid_have_theirs_too"),
    ecap(51, 1, "PMS", "no performance counters", ABSENT),
    ecap(52, 1, "ADMS", "no abort-DMA mode", ABSENT),
    ecap(53, 1, "RPRIVS", "requests without a PASID are never privileged", ABSENT),
];
