//! `vcmd`: the kernel's own PASID allocator, which asks the host by virtual commands.
//!
//! Loads the test module, which allocates until it is refused; tells the host what it got and waits until the
//! host has looked at its ledger; unloads it, which frees all; waits again; loads and unloads it
//! once more, since freed PASIDs must be there to be had again.

use std::process::Command;

use anyhow::{Context, bail, ensure};

use crate::kernel_log::KernelLog;
use crate::report::Report;

const MODULE: &str = "/lib/modules/palisade_vcmd.ko";
const NAME: &str = "palisade_vcmd";

/// The module stops at fewer.
const MOST_IDS: u32 = 1 << 20;

/// What Linux logs when the host answers that no PASID is left, which it turns into ENOSPC.
const NO_PASID_MESSAGE: &str = "No PASID available";

/// What Linux logs when it takes PASIDs from the host from now on.
const REGISTERED_MESSAGE: &str = "Register custom PASID allocator";

pub(super) fn run(report: &Report) -> anyhow::Result<()> {
    let mut log = KernelLog::open()?;
    let boot = log.new_messages()?;
    match boot.iter().any(|m| m.contains(REGISTERED_MESSAGE)) {
        true => report.pass("allocator-registered", ""),
        false => report.fail(
            "allocator-registered",
            "the kernel does not take its PASIDs from the host",
        ),
    }
    let first = load(&mut log)?;
    report.note("vcmd-count", first.ids.len());
    report.note("vcmd-ids", list(&first.ids));
    report.outcome("quota-ends-in-enospc", first.check_end());
    report.wait_for_host()?;

    report.outcome("free-all", unload(&mut log, first.ids.len()));
    report.note("vcmd-freed", first.ids.len());
    report.wait_for_host()?;

    let second = load(&mut log)?;
    let freed = unload(&mut log, second.ids.len());
    report.outcome(
        "allocate-again",
        freed.and_then(|_| {
            ensure!(
                second.ids.len() == first.ids.len(),
                "{} PASIDs the first time, {} the second",
                first.ids.len(),
                second.ids.len()
            );
            Ok(second.ids.len())
        }),
    );
    Ok(())
}

/// Ids as ranges, since there may be a thousand and a line is a line: `1-3,7`.
fn list(ids: &[u32]) -> String {
    let mut sorted = ids.to_vec();
    sorted.sort_unstable();
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for id in sorted {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(id) => *last = id,
            _ => ranges.push((id, id)),
        }
    }
    let words: Vec<String> = ranges
        .iter()
        .map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        })
        .collect();
    words.join(",")
}

/// What came of loading the module.
#[derive(Debug, Default, PartialEq, Eq)]
struct Loaded {
    ids: Vec<u32>,
    count: Option<usize>,
    refused: bool,
    no_pasid_left: bool,
}

impl Loaded {
    fn from_messages(messages: &[String]) -> anyhow::Result<Self> {
        let mut loaded = Self::default();
        for message in messages {
            loaded.no_pasid_left |= message.contains(NO_PASID_MESSAGE);
            let Some(ours) = ours(message) else { continue };
            if let Some(range) = ours.strip_prefix("allocated ") {
                let (first, last) = range.split_once('-').context("a range without an end")?;
                let (first, last): (u32, u32) = (first.parse()?, last.parse()?);
                ensure!(
                    last.checked_sub(first).is_some_and(|more| more < MOST_IDS),
                    "a range of PASIDs from {first} to {last}"
                );
                loaded.ids.extend(first..=last);
            }
            if let Some(count) = ours.strip_prefix("refused after ") {
                loaded.refused = true;
                loaded.count = count.parse().ok();
            } else if let Some(count) = ours.strip_prefix("limit reached after ") {
                loaded.count = count.parse().ok();
            }
        }
        ensure!(
            loaded.count == Some(loaded.ids.len()),
            "the module got {:?} PASIDs and told {} of them",
            loaded.count,
            loaded.ids.len()
        );
        Ok(loaded)
    }

    fn check_end(&self) -> anyhow::Result<String> {
        ensure!(
            self.refused,
            "the allocator gave {} PASIDs and would give more",
            self.ids.len()
        );
        ensure!(
            self.no_pasid_left,
            "refused after {}, but not because none was left",
            self.ids.len()
        );
        Ok(format!("after {}", self.ids.len()))
    }
}

fn ours(message: &str) -> Option<&str> {
    message.strip_prefix(NAME)?.strip_prefix(": ")
}

fn load(log: &mut KernelLog) -> anyhow::Result<Loaded> {
    busybox(&["insmod", MODULE])?;
    Loaded::from_messages(&log.new_messages()?)
}

fn unload(log: &mut KernelLog, count: usize) -> anyhow::Result<String> {
    busybox(&["rmmod", NAME])?;
    let messages = log.new_messages()?;
    let freed = messages
        .iter()
        .filter_map(|message| ours(message)?.strip_prefix("freed "))
        .next_back();
    ensure!(
        freed == Some(count.to_string().as_str()),
        "{count} PASIDs were allocated, freed were {freed:?}"
    );
    // A PASID may not get as far as the host, or the host may answer with an error. Either is logged.
    let complaints = ["Cannot free", "Invalid PASID", "Unexpected error"];
    let complaint = messages
        .iter()
        .find(|message| complaints.iter().any(|text| message.contains(text)));
    if let Some(complaint) = complaint {
        bail!("a PASID could not be freed: {complaint}");
    }
    Ok(count.to_string())
}

fn busybox(arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("/bin/busybox")
        .args(arguments)
        .output()
        .context("cannot start busybox")?;
    ensure!(
        output.status.success(),
        "{}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_listed_as_ranges() {
        assert_eq!(list(&[]), "");
        assert_eq!(list(&[7]), "7");
        assert_eq!(list(&[3, 1, 2, 9, 8, 20]), "1-3,8-9,20");
    }

    #[test]
    fn what_the_module_says_is_understood() {
        let messages = [
            "DMAR: IOMMU: dmar0: No PASID available",
            "palisade_vcmd: allocated 5-6",
            "palisade_vcmd: allocated 9-9",
            "palisade_vcmd: refused after 3",
        ]
        .map(str::to_owned);
        let loaded = Loaded::from_messages(&messages).unwrap();
        assert_eq!(loaded.ids, [5, 6, 9]);
        assert!(loaded.check_end().is_ok());
        assert!(Loaded::from_messages(&messages[..3]).is_err());
        let other_reason = Loaded::from_messages(&messages[1..]).unwrap();
        assert!(other_reason.check_end().is_err());
    }
}
