//! The tables of all cases as a page, and that the page tells the truth.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    case::{File, Ours},
    config, dirty, dma, elsewhere, errors, info, interrupts, memory, migration, negotiate, quiet,
    regions,
};

const FRONT: &str = "# The server beside libvfio-user, case by case

libvfio-user's own tests (`test/py` in github.com/nutanix/libvfio-user, at commit efd091bc) are the best list in the field of what a
server of the protocol must take and with which error it must refuse. Here is each case in our words, and what this
server does with it. Cases that only set up or tear down are left out.

Written by `UPDATE_DOCS=1 cargo test -p palisade-vfio-user --test libvfio_user` from the tables beside the tests, which also
checks that each test exists that is named here.
";

/// All files, by name.
fn files() -> Vec<File> {
    let mut files = vec![
        dirty::FILE,
        errors::FILE,
        migration::FILE,
        negotiate::FILE,
        quiet::FILE,
    ];
    files.extend(config::FILES);
    files.extend(dma::FILES);
    files.extend(elsewhere::FILES);
    files.extend(info::FILES);
    files.extend(interrupts::FILES);
    files.extend(memory::FILES);
    files.extend(regions::FILES);
    files.sort_by_key(|file| file.name);
    files
}

/// How many cases there are in all, that go alike, that differ, and that do not apply.
fn count(files: &[File]) -> [usize; 4] {
    let cases = || files.iter().flat_map(|file| file.cases);
    let of = |is: fn(&Ours) -> bool| cases().filter(|case| is(&case.ours)).count();
    [
        cases().count(),
        of(|ours| matches!(ours, Ours::Same(_))),
        of(|ours| matches!(ours, Ours::Differs(..))),
        of(|ours| matches!(ours, Ours::None(_))),
    ]
}

fn page() -> String {
    let files = files();
    let [all, same, differ, none] = count(&files);
    let mut page = FRONT.to_owned();
    writeln!(
        page,
        "\nOf {all} cases {same} go as there, {differ} differ for the reason that is given, and {none} have nothing here to which they apply."
    )
    .unwrap();
    for file in files {
        write!(
            page,
            "\n## {}\n\n| case | asks for | applies | ours | test |\n|---|---|---|---|---|\n",
            file.name
        )
        .unwrap();
        for case in file.cases {
            let (applies, ours, test) = match case.ours {
                Ours::Same(test) => ("yes", "the same".to_owned(), format!("`{test}`")),
                Ours::Differs(test, why) => ("yes", format!("differs: {why}"), format!("`{test}`")),
                Ours::None(why) => ("no", why.to_owned(), "-".to_owned()),
            };
            let (name, asks) = (case.name, case.asks);
            writeln!(page, "| `{name}` | {asks} | {applies} | {ours} | {test} |").unwrap();
        }
    }
    page
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn the_page_in_docs_is_what_the_tables_say() {
    let path = root().join("docs/vfio-user.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, page()).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap();
    assert!(
        found == page(),
        "docs/vfio-user.md is not what the tables say: run this test with UPDATE_DOCS=1"
    );
}

#[test]
fn every_test_that_the_page_names_exists() {
    let mut sources = String::new();
    collect(&root().join("crates/vfio-user/tests"), &mut sources).unwrap();
    for case in files().iter().flat_map(|file| file.cases) {
        if let Ours::Same(test) | Ours::Differs(test, _) = case.ours {
            let name = format!("#[test]\nfn {test}(");
            assert!(sources.contains(&name), "{}: no {test}", case.name);
        }
    }
}

#[test]
fn no_case_is_told_twice() {
    for file in files() {
        let mut names: Vec<_> = file.cases.iter().map(|case| case.name).collect();
        names.sort_unstable();
        let told = names.len();
        names.dedup();
        assert_eq!(names.len(), told, "{}", file.name);
    }
}

fn collect(folder: &Path, into: &mut String) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, into)?;
        } else if path.extension().is_some_and(|end| end == "rs") {
            into.push_str(&fs::read_to_string(&path)?);
        }
    }
    Ok(())
}
