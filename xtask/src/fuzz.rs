//! The fuzzer's targets, one after the other. It needs a nightly toolchain, a C++ compiler and
//! `cargo install cargo-fuzz`; that what it found before stays mended is for `cargo test`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, ensure};

/// Where the targets and their lock file are.
const PROJECT: &str = "fuzz/targets";
/// Longer inputs say nothing that shorter ones do not.
const MAX_LEN_BYTES: u32 = 2048;
/// An input that takes longer hangs.
const TIMEOUT_S: u32 = 20;
/// How many inputs of a fuzzer's finding the repository keeps for each target, beside those that were made by hand: their
/// replay is to take no longer than a test.
const MOST_KEPT: usize = 24;
/// A fuzzer's input has its hash as its name, in hexadecimal.
const HASH_CHARS: usize = 40;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The targets; all without any
    targets: Vec<String>,
    /// For how long each runs
    #[arg(long, default_value_t = 10)]
    minutes: u32,
    /// Keep a sample of the inputs that reach everything in the repository, in place of the last one
    #[arg(long)]
    keep: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the workspace's folder")?;
    let there = targets(root)?;
    if let Some(unknown) = arguments.targets.iter().find(|name| !there.contains(name)) {
        anyhow::bail!(
            "there is no target {unknown:?}; there is {}",
            there.join(", ")
        );
    }
    let chosen = if arguments.targets.is_empty() {
        &there
    } else {
        &arguments.targets
    };
    let scratch = root.join("target/fuzz");
    let built = Command::new("cargo")
        .args(["+nightly", "fuzz", "build", "--fuzz-dir", PROJECT])
        .env("CARGO_TARGET_DIR", &scratch)
        .current_dir(root)
        .status()
        .context("cargo")?;
    ensure!(
        built.success(),
        "the targets are not built: install a nightly toolchain, g++ and cargo-fuzz"
    );
    let mut failed = 0;
    for name in chosen {
        println!("== {name}, {} minutes", arguments.minutes);
        let target = Target {
            binary: scratch.join("x86_64-unknown-linux-gnu/release").join(name),
            found: scratch.join("found").join(name),
            kept: root.join("fuzz/corpus").join(name),
            inputs: scratch.join("inputs").join(name),
            merged: scratch.join("merged").join(name),
        };
        if target.fuzz(arguments.minutes)? {
            if arguments.keep {
                target.keep()?;
            }
        } else {
            println!("{name}: a finding, in {}", target.found.display());
            failed += 1;
        }
    }
    println!("{} passed, {failed} failed", chosen.len() - failed);
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The names of all targets.
fn targets(root: &Path) -> anyhow::Result<Vec<String>> {
    let folder = root.join(PROJECT).join("fuzz_targets");
    let files = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut names = Vec::new();
    for file in files {
        let path = file?.path();
        names.extend(path.file_stem().map(|stem| stem.display().to_string()));
    }
    names.sort();
    Ok(names)
}

struct Target {
    binary: PathBuf,
    /// Inputs that are findings.
    found: PathBuf,
    /// Inputs of the repository.
    kept: PathBuf,
    /// Inputs of this machine that reached something.
    inputs: PathBuf,
    /// Those of them that reach everything that any reached.
    merged: PathBuf,
}

impl Target {
    /// Whether nothing was found.
    fn fuzz(&self, minutes: u32) -> anyhow::Result<bool> {
        for folder in [&self.found, &self.kept, &self.inputs] {
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        let status = Command::new(&self.binary)
            .arg(format!("-max_total_time={}", minutes.saturating_mul(60)))
            .arg(format!("-max_len={MAX_LEN_BYTES}"))
            .arg(format!("-timeout={TIMEOUT_S}"))
            .arg("-print_final_stats=1")
            .arg(format!("-artifact_prefix={}/", self.found.display()))
            .args([&self.inputs, &self.kept])
            .status()
            .with_context(|| self.binary.display().to_string())?;
        Ok(status.success())
    }

    fn keep(&self) -> anyhow::Result<()> {
        if self.merged.exists() {
            fs::remove_dir_all(&self.merged)?;
        }
        fs::create_dir_all(&self.merged)?;
        let merged = Command::new(&self.binary)
            .arg("-set_cover_merge=1")
            .args([&self.merged, &self.inputs])
            .status()?;
        ensure!(merged.success(), "the inputs are not merged");
        for (_, old) in inputs_of(&self.kept)? {
            fs::remove_file(old)?;
        }
        for input in sample(&inputs_of(&self.merged)?) {
            let name = input.file_name().context("an input's name")?;
            fs::copy(input, self.kept.join(name))?;
        }
        Ok(())
    }
}

/// The fuzzer's inputs in a folder with their sizes, the smallest first.
fn inputs_of(folder: &Path) -> anyhow::Result<Vec<(u64, PathBuf)>> {
    let mut inputs = Vec::new();
    for file in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let file = file?;
        let name = file.file_name();
        let is_hash = |byte: &u8| byte.is_ascii_hexdigit();
        if name.len() == HASH_CHARS && name.as_encoded_bytes().iter().all(is_hash) {
            inputs.push((file.metadata()?.len(), file.path()));
        }
    }
    inputs.sort();
    Ok(inputs)
}

/// Some of them, of all sizes.
fn sample(inputs: &[(u64, PathBuf)]) -> impl Iterator<Item = &Path> {
    let chosen = inputs.len().min(MOST_KEPT);
    let nth = move |n| inputs.get(n * inputs.len() / chosen);
    (0..chosen).filter_map(nth).map(|(_, path)| path.as_path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_small_and_of_all_sizes() {
        let inputs = |count: u64| -> Vec<_> {
            let input = |len: u64| (len, PathBuf::from(len.to_string()));
            (0..count).map(input).collect()
        };
        for (count, kept) in [(0, 0), (1, 1), (24, 24), (25, 24), (1000, 24)] {
            let inputs = inputs(count);
            let sample: Vec<_> = sample(&inputs).collect();
            assert_eq!(sample.len(), kept, "{count}");
            let mut distinct = sample.clone();
            distinct.dedup();
            assert_eq!(distinct, sample, "{count}");
        }
        let inputs = inputs(1000);
        assert_eq!(sample(&inputs).last(), Some(Path::new("958")));
    }
}
