use super::*;

fn pasid(raw: u32) -> GuestPasid {
    GuestPasid::new(raw).unwrap()
}

#[test]
fn a_pasid_is_a_directory_index_and_a_table_index() {
    assert_eq!(DirectoryEntry::offset_of(pasid(0x12345)), 0x48d * 8);
    assert_eq!(PasidEntry::offset_of(pasid(0x12345)), 5 * 64);
}

#[test]
fn a_first_stage_entry_is_what_linux_writes() {
    let entry = PasidEntry::first_stage(
        Gpa::new(0xabc_d000),
        PagingMode::FiveLevel,
        DomainId::new(1),
        FirstStageFlags::empty(),
    );
    let words = entry.to_words();
    assert_eq!(words[0], 0b001 << 6 | 3 << 2 | 1, "PGTT 1, AW 3, P");
    assert_eq!(words[1], 1 << 23 | 1, "PWSNP, DID 1");
    assert_eq!(words[2], 0xabc_d000 | 1 << 2, "FSPTPTR, FSPM 1");
    assert_eq!(words[3..], [0; 5]);
    assert!(entry.reserved_is_zero());
    assert_eq!(PasidEntry::from_words(words), entry);
}

#[test]
fn every_kind_of_entry_comes_back_as_it_was() {
    let first = FirstStage {
        root: Gpa::new(0x1000),
        mode: PagingMode::FourLevel,
        flags: FirstStageFlags::SUPERVISOR_REQUESTS | FirstStageFlags::WRITE_PROTECT,
    };
    let second = SecondStage {
        root: Gpa::new(0x2000),
        width: AddressWidth::FourLevel,
    };
    let domain = DomainId::new(7);
    let entries = [
        (
            PasidEntry::first_stage(first.root, first.mode, domain, first.flags),
            Translation::FirstStage(first),
        ),
        (
            PasidEntry::second_stage(second.root, second.width, domain),
            Translation::SecondStage(second),
        ),
        (
            PasidEntry::nested(first, second, domain),
            Translation::Nested(first, second),
        ),
        (PasidEntry::pass_through(domain), Translation::PassThrough),
    ];
    for (entry, translation) in entries {
        let read = PasidEntry::from_words(entry.to_words());
        assert_eq!(read.translation(), translation);
        assert_eq!(read.domain(), domain);
        assert!(read.present() && read.reserved_is_zero());
    }
}

#[test]
fn reserved_bits_of_a_pasid_entry_are_seen_and_ignored_ones_are_not() {
    let with = |word: usize, bit: u32| {
        let mut words = PasidEntry::pass_through(DomainId::new(1)).to_words();
        words[word] |= 1 << bit;
        PasidEntry::from_words(words)
    };
    for (word, bit) in [
        (0, 5),
        (0, 10),
        (0, 11),
        (0, 63),
        (1, 16),
        (1, 25),
        (1, 96 - 64),
        (2, 1),
        (2, 8),
        (2, 11),
        (2, 52),
        (3, 0),
        (7, 63),
    ] {
        assert!(!with(word, bit).reserved_is_zero(), "word {word} bit {bit}");
    }
    for (word, bit) in [(0, 9), (1, 23), (1, 24), (2, 5), (2, 6), (2, 7)] {
        assert!(with(word, bit).reserved_is_zero(), "word {word} bit {bit}");
    }
}
