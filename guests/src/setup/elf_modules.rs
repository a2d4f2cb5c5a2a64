//! What a kernel module needs, read from the module itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// All modules under a folder, by name.
#[derive(Debug)]
pub(super) struct Index {
    files: BTreeMap<String, PathBuf>,
}

impl Index {
    /// Looks for modules under `folder`.
    pub(super) fn of(folder: &Path) -> anyhow::Result<Self> {
        let mut files = BTreeMap::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder)
                .with_context(|| format!("cannot read {}", folder.display()))?
            {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    folders.push(entry.path());
                } else if let Some(name) = entry.file_name().to_str().and_then(module_name) {
                    files.insert(name, entry.path());
                }
            }
        }
        Ok(Self { files })
    }

    /// The modules `wanted` and all that they need, each after those that it needs, decompressed by `read`.
    pub(super) fn closure(
        &self,
        wanted: &[&str],
        read: impl Fn(&Path) -> anyhow::Result<Vec<u8>>,
    ) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
        let mut found: Vec<(String, Vec<u8>)> = Vec::new();
        let mut open: Vec<String> = wanted.iter().map(|&name| name.to_owned()).collect();
        while let Some(name) = open.pop() {
            // One that is needed again must come before all that was found so far.
            if let Some(at) = found.iter().position(|(other, _)| *other == name) {
                let module = found.remove(at);
                open.extend(needed_by(&module.1));
                found.push(module);
                continue;
            }
            let file = self
                .files
                .get(&name)
                .with_context(|| format!("the kernel has no module {name}"))?;
            let module = read(file)?;
            open.extend(needed_by(&module));
            found.push((name, module));
        }
        found.reverse();
        Ok(found)
    }
}

/// The name of the module in a file, as `depends` writes it.
fn module_name(file: &str) -> Option<String> {
    let (name, ending) = file.split_once('.')?;
    matches!(ending, "ko" | "ko.xz").then(|| name.replace('-', "_"))
}

/// The modules that `module` needs: the entry `depends=` of its information section.
fn needed_by(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = module[at + KEY.len()..].split(|byte| *byte == 0).next();
    String::from_utf8_lossy(value.unwrap_or_default())
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(modules: &[(&str, &str)]) -> (tempfile::TempDir, Index) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("deeper")).unwrap();
        for (name, needs) in modules {
            let bytes = format!("\u{7f}ELF\0license=GPL\0depends={needs}\0name={name}\0");
            fs::write(folder.path().join(format!("deeper/{name}.ko")), bytes).unwrap();
        }
        let index = Index::of(folder.path()).unwrap();
        (folder, index)
    }

    fn names(index: &Index, wanted: &[&str]) -> Vec<String> {
        let found = index.closure(wanted, |file| Ok(fs::read(file)?)).unwrap();
        found.into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn a_module_comes_after_those_that_it_needs() {
        let (_folder, index) = index(&[
            ("top", "left,right"),
            ("left", "base"),
            ("right", "left"),
            ("base", ""),
            ("other", "base"),
        ]);
        assert_eq!(names(&index, &["top"]), ["base", "left", "right", "top"]);
        assert_eq!(names(&index, &["base"]), ["base"]);
        assert_eq!(names(&index, &["left", "other"]), ["base", "left", "other"]);
    }

    #[test]
    fn a_missing_module_is_named() {
        let (_folder, index) = index(&[("top", "gone")]);
        let error = index
            .closure(&["top"], |file| Ok(fs::read(file)?))
            .unwrap_err();
        assert_eq!(error.to_string(), "the kernel has no module gone");
    }

    #[test]
    fn names_are_written_as_dependencies_write_them() {
        assert_eq!(module_name("idxd-bus.ko.xz").as_deref(), Some("idxd_bus"));
        assert_eq!(module_name("idxd.ko").as_deref(), Some("idxd"));
        assert_eq!(module_name("modules.order"), None);
    }
}
