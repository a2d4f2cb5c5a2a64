//! R78: the corpora of the fuzzer, and random bytes, with the stable toolchain.

use std::{fs, path::Path};

use palisade_fuzz_entries::{ENTRIES, Entry};
use proptest::prelude::*;

fn replay(entry: &Entry) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let folder = folder.join(entry.name);
    let mut inputs: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|file| file.unwrap().path())
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{} holds no input", folder.display());
    for input in inputs {
        println!("{}", input.display());
        (entry.run)(&fs::read(&input).unwrap());
    }
}

#[test]
fn r78_every_corpus_runs_without_a_finding() {
    for entry in ENTRIES {
        replay(entry);
    }
}

#[test]
fn every_corpus_is_of_an_entry_and_every_target_calls_one() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR"));
    let names = |folder: &str| -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(fuzz.join(folder))
            .unwrap()
            .map(|file| file.unwrap().path())
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    };
    let mut entries: Vec<_> = ENTRIES.iter().map(|entry| entry.name.to_owned()).collect();
    entries.sort();
    assert_eq!(names("corpus"), entries);
    assert_eq!(names("targets/fuzz_targets"), entries);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn r78_no_bytes_are_a_finding(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        for entry in ENTRIES {
            (entry.run)(&bytes);
        }
    }
}
