//! The tutorial's code is the device's: each file of `src` is in docs/device.md, in pieces that follow one
//! another and leave nothing out. So what people read is what the other tests compile and run.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on ends"
)]

use std::collections::BTreeMap;
use std::path::Path;

const OPENING: &str = "```rust file=";

/// The lines of a text but for empty ones: pieces are cut where the empty lines are.
fn lines(text: &str) -> Vec<&str> {
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .collect()
}

/// The code of each file that the tutorial shows, and how many blocks of Rust there are beside those.
fn shown(tutorial: &str) -> (BTreeMap<&str, Vec<&str>>, usize) {
    let mut files = BTreeMap::<_, Vec<_>>::new();
    let mut others = 0;
    let mut inside = None;
    for line in tutorial.lines() {
        match inside {
            None => {
                inside = line.strip_prefix(OPENING);
                others += usize::from(inside.is_none() && line.starts_with("```rust"));
            }
            Some(_) if line == "```" => inside = None,
            Some(file) => files.entry(file).or_default().extend(lines(line)),
        }
    }
    assert_eq!(inside, None, "a block without an end");
    (files, others)
}

#[test]
fn r76_the_tutorials_code_is_the_devices() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let tutorial = read(&here.join("../../docs/device.md"));
    let (shown, others) = shown(&tutorial);
    assert_eq!(
        others, 0,
        "code that is of no file, so that nobody compiles it"
    );
    let mut files = 0;
    for entry in std::fs::read_dir(here.join("src")).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("src/{}", path.file_name().unwrap().to_str().unwrap());
        let Some(shown) = shown.get(name.as_str()) else {
            panic!("{name} is not in the tutorial");
        };
        let text = read(&path);
        for (line, (is, says)) in lines(&text).iter().zip(shown).enumerate() {
            assert_eq!(is, says, "{name}, line {} of those with text", line + 1);
        }
        assert_eq!(lines(&text).len(), shown.len(), "{name} goes on");
        files += 1;
    }
    assert_eq!(files, shown.len(), "a file that is not there");
}
