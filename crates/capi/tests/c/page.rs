//! docs/clients.md shows code that is compiled and run, and names every call.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(file: &str) -> String {
    let text = std::fs::read_to_string(root().join(file));
    text.unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The blocks of code, each with the file that it is of, and its lines.
fn blocks(page: &str) -> Vec<(&str, Vec<&str>)> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(language) = line.strip_prefix("```") else {
            continue;
        };
        let inside: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
        match language.split_once(" file=") {
            Some((_, file)) => blocks.push((file, inside)),
            None => assert_eq!(language, "sh", "code that is of no file"),
        }
    }
    blocks
}

#[test]
fn the_code_on_the_page_is_the_examples() {
    let page = read("docs/clients.md");
    let blocks = blocks(&page);
    assert!(blocks.len() > 6, "{} blocks", blocks.len());
    for (file, shown) in blocks {
        let text = read(file);
        let lines: Vec<_> = text.lines().collect();
        let found = lines.windows(shown.len()).any(|some| *some == shown);
        assert!(found, "not in {file}:\n{}", shown.join("\n"));
    }
}

#[test]
fn the_page_names_every_call_and_its_method() {
    let page = read("docs/clients.md");
    let map = read("crates/capi/palisade.map");
    let functions = map.lines().filter_map(|line| line.trim().strip_suffix(';'));
    for name in functions.filter(|name| name.starts_with("palisade_")) {
        let short = name.strip_prefix("palisade_iommufd_").unwrap_or(name);
        let is_named = page.contains(&format!("`{name}`")) || page.contains(&format!("`{short}`"));
        assert!(is_named, "{name}");
    }
    let client = root().join("crates/container/src/client");
    let files = [client.join("iommufd"), client].map(|folder| std::fs::read_dir(folder).unwrap());
    let files = files.into_iter().flatten();
    let files = files.map(|file| file.unwrap().path());
    for file in files.filter(|file| file.is_file()) {
        let text = std::fs::read_to_string(file).unwrap();
        let methods = text
            .lines()
            .filter_map(|line| line.strip_prefix("    pub fn "));
        for method in methods.map(|rest| rest.split('(').next().unwrap()) {
            let named = [format!("`{method}`"), format!("::{method}`")];
            let is_named = named.iter().any(|name| page.contains(name));
            assert!(is_named || ["errno", "over"].contains(&method), "{method}");
        }
    }
}
