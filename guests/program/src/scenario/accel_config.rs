//! `accel-config`: the queue is made, and taken away and given back, by the tool that administrators have for it.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::accel_config;
use crate::bring_up::{Accelerator, find_accelerators};
use crate::dsa::WorkQueue;
use crate::report::Report;
use crate::scenario::copying::copy;

/// What is loaded, and what comes back.
const LOADED: &str = "/tmp/loaded.conf";
const SAVED: &str = "/tmp/saved.conf";

/// Of the device and of the queue the tool has so many words in common with the kernel at least.
const COMPARED: usize = 6;

pub(super) fn run(report: &Report) -> anyhow::Result<()> {
    let accelerators = find_accelerators(1)?;
    let accelerator = accelerators.first().context("no accelerator")?;
    let device = accelerator.name.as_str();
    let number = device.trim_start_matches("dsa");
    let queue = format!("wq{number}.0");
    let path = format!("{device}/{queue}");
    let configuration = configuration(accelerator, number)?;

    report.outcome("list-unconfigured", listed(&[device], "disabled"));
    report.outcome("load-config", load(accelerator, &configuration));
    report.outcome("list-enabled", listed(&[device, &queue], "enabled"));
    report.outcome("copy", copy_once(accelerator));
    report.outcome("save-config", save(&configuration));
    let step = |command, operand: &str, changed: &str, state| {
        let outcome = step(accelerator, command, operand, (changed, state));
        report.outcome(command, outcome);
    };
    step("disable-wq", &path, &queue, "disabled");
    step("disable-device", device, device, "disabled");
    // The driver forgets the configuration of what is disabled.
    report.outcome("load-config-alone", configure(&configuration));
    step("enable-device", device, device, "enabled");
    step("enable-wq", &path, &queue, "enabled");
    report.outcome("copy-again", copy_once(accelerator));
    // With a queue enabled, which goes with it.
    step("disable-device", device, device, "disabled");
    Ok(())
}

/// One queue of one's own, one engine, in one group; in the tool's format.
///
/// It is text because the order counts: the tool sets what it reads as it reads it, and the kernel forgets a queue's
/// name when the queue's type changes.
fn configuration(accelerator: &Accelerator, number: &str) -> anyhow::Result<String> {
    let device = &accelerator.name;
    let entries = accelerator.queue_entries()?;
    Ok(format!(
        r#"[{{
  "dev": "{device}",
  "groups": [{{
    "dev": "group{number}.0",
    "grouped_workqueues": [{{
      "dev": "wq{number}.0",
      "mode": "dedicated",
      "size": {entries},
      "group_id": 0,
      "priority": 10,
      "block_on_fault": 1,
      "type": "user",
      "driver_name": "user",
      "name": "palisade"
    }}],
    "grouped_engines": [{{ "dev": "engine{number}.0", "group_id": 0 }}]
  }}]
}}]
"#
    ))
}

/// The tool says what the kernel says, of each of `names`, and that they are in this state.
fn listed(names: &[&str], state: &str) -> anyhow::Result<String> {
    let document = accel_config::list()?;
    let mut told = Vec::new();
    for name in names {
        let compared = accel_config::compare_with_sysfs(&document, name)?;
        ensure!(
            compared >= COMPARED,
            "{name}: only {compared} words of the tool are the kernel's too: {document}"
        );
        let listed = accel_config::find(&document, name).and_then(|object| object.get("state"));
        ensure!(
            listed.and_then(Value::as_str) == Some(state),
            "{name} is listed as {listed:?}, not as {state}"
        );
        told.push(format!(
            "{name}: {compared} attributes as in sysfs, {state}"
        ));
    }
    Ok(told.join("; "))
}

/// Configures, and enables nothing.
fn configure(configuration: &str) -> anyhow::Result<String> {
    fs::write(LOADED, configuration).context("cannot write the configuration")?;
    accel_config::run(&["load-config", "-c", LOADED])
}

/// Configures and enables.
fn load(accelerator: &Accelerator, configuration: &str) -> anyhow::Result<String> {
    fs::write(LOADED, configuration).context("cannot write the configuration")?;
    let said = accel_config::run(&["load-config", "-c", LOADED, "-e"])?;
    accelerator.wait_for_queue()?;
    Ok(said)
}

fn save(configuration: &str) -> anyhow::Result<String> {
    accel_config::run(&["save-config", "-s", SAVED])?;
    let text = fs::read_to_string(SAVED).context("cannot read what was saved")?;
    let saved: Value = serde_json::from_str(&text)
        .with_context(|| format!("what was saved is not JSON: {text}"))?;
    let loaded: Value =
        serde_json::from_str(configuration).context("what was loaded is no JSON")?;
    accel_config::expect_contains(&saved, &loaded)
        .with_context(|| format!("what was saved is not what was loaded: {saved}"))?;
    Ok(format!("{} bytes, with all that was loaded", text.len()))
}

/// Runs a command, and checks that the tool and the kernel say that `changed` has that state now.
fn step(
    accelerator: &Accelerator,
    command: &str,
    operand: &str,
    (changed, state): (&str, &str),
) -> anyhow::Result<String> {
    let said = accel_config::run(&[command, operand])?;
    let file = Path::new("/sys/bus/dsa/devices")
        .join(changed)
        .join("state");
    let is =
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    ensure!(
        is.trim() == state,
        "{changed} is {} after {command}: {said}",
        is.trim()
    );
    match command {
        "enable-wq" => accelerator.wait_for_queue()?,
        "disable-wq" => ensure!(
            !accelerator.queue_path().exists(),
            "the queue is disabled, but its device file is there"
        ),
        _ => {}
    }
    Ok(said)
}

fn copy_once(accelerator: &Accelerator) -> anyhow::Result<String> {
    copy(&WorkQueue::open(&accelerator.queue_path())?)
}
