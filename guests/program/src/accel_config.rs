//! The distribution's tool for accelerators, and its documents.
//!
//! What it lists, loads and saves is one format of JSON: an array of devices, each with its groups, each of those
//! with the queues and engines in it. Everything has its kernel name under `dev`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use serde_json::{Map, Value};

const PROGRAM: &str = "/bin/accel-config";

/// The folder of everything that has a name.
const DEVICES: &str = "/sys/bus/dsa/devices";

/// How the tool calls what has a name.
const NAME: &str = "dev";

/// Runs the tool, and returns what it wrote to standard output.
///
/// # Errors
/// It is not in this image, or fails; the error has what it said.
pub fn run(arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(PROGRAM)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {PROGRAM}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "accel-config {} ended with {}: {} {}",
        arguments.join(" "),
        output.status,
        said.trim(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(said)
}

/// All accelerators, as the tool lists them, those without any queue enabled too.
///
/// # Errors
/// The tool fails, or what it writes is not its format.
pub fn list() -> anyhow::Result<Value> {
    let text = run(&["list", "-i"])?;
    serde_json::from_str(&text).with_context(|| format!("the list is not JSON: {text}"))
}

/// What `document` says of the thing called `name`, wherever in it.
#[must_use]
pub fn find<'a>(document: &'a Value, name: &str) -> Option<&'a Map<String, Value>> {
    match document {
        Value::Array(values) => values.iter().find_map(|value| find(value, name)),
        Value::Object(object) => match object.get(NAME) {
            Some(Value::String(own)) if own == name => Some(object),
            _ => object.values().find_map(|value| find(value, name)),
        },
        _ => None,
    }
}

/// Compares what `document` says of `name` with the kernel's files of the same names, and returns how many there
/// are.
///
/// # Errors
/// The document does not know it, or one of them differs.
pub fn compare_with_sysfs(document: &Value, name: &str) -> anyhow::Result<usize> {
    let object = find(document, name).with_context(|| format!("{name} is not listed"))?;
    let folder = Path::new(DEVICES).join(name);
    let mut compared = 0;
    for (key, value) in object {
        let Ok(text) = fs::read_to_string(folder.join(key)) else {
            // The tool has names of its own, for what is nested for one.
            continue;
        };
        ensure!(
            same(value, text.trim()),
            "{name}: {key} is {value} to the tool, but the kernel says {}",
            text.trim()
        );
        compared += 1;
    }
    Ok(compared)
}

/// Whether `value` is what the kernel writes as `text`: a number in either base, or words.
fn same(value: &Value, text: &str) -> bool {
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(digits) => i128::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    match value {
        Value::Number(told) => number(&told.to_string()) == number(text),
        Value::String(told) => {
            told == text || (number(told).is_some() && number(told) == number(text))
        }
        _ => false,
    }
}

/// Checks that all that `wanted` says `document` says too. It may say more; what has names may be in any order.
///
/// # Errors
/// Names the first thing that differs.
pub fn expect_contains(document: &Value, wanted: &Value) -> anyhow::Result<()> {
    match (document, wanted) {
        (Value::Object(document), Value::Object(wanted)) => {
            for (key, value) in wanted {
                let found = document
                    .get(key)
                    .with_context(|| format!("{key} is missing"))?;
                expect_contains(found, value).with_context(|| key.clone())?;
            }
            Ok(())
        }
        (Value::Array(document), Value::Array(wanted)) => {
            for value in wanted {
                let name = value.get(NAME).context("an entry has no name")?;
                let found = document.iter().find(|found| found.get(NAME) == Some(name));
                let found = found.with_context(|| format!("{name} is missing"))?;
                expect_contains(found, value).with_context(|| name.to_string())?;
            }
            Ok(())
        }
        _ if document == wanted => Ok(()),
        _ => bail!("it is {document}, not {wanted}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_thing_is_found_wherever_it_is_nested() {
        let document = json!([
            {"dev": "dsa0", "groups": [
                {"dev": "group0.0", "grouped_workqueues": [{"dev": "wq0.0", "size": 16}]}]},
            {"dev": "dsa1"}
        ]);
        assert_eq!(find(&document, "wq0.0").unwrap()["size"], 16);
        assert!(find(&document, "dsa1").is_some());
        assert_eq!(find(&document, "wq1.0"), None);
    }

    #[test]
    fn what_was_saved_may_say_more_than_what_was_loaded_and_nothing_else() {
        let saved = json!([{"dev": "dsa0", "groups": [
            {"dev": "group0.1"}, {"dev": "group0.0", "size": 16, "name": "mine"}]}]);
        expect_contains(&saved, &json!([{"dev": "dsa0"}])).unwrap();
        expect_contains(
            &saved,
            &json!([{"groups": [{"dev": "group0.0", "size": 16}], "dev": "dsa0"}]),
        )
        .unwrap();
        let other = json!([{"dev": "dsa0", "groups": [{"dev": "group0.0", "size": 8}]}]);
        let error = expect_contains(&saved, &other).unwrap_err();
        assert!(
            format!("{error:#}").ends_with("size: it is 16, not 8"),
            "{error:#}"
        );
        assert!(expect_contains(&saved, &json!([{"dev": "dsa1"}])).is_err());
    }

    #[test]
    fn numbers_are_the_same_in_either_base_and_words_only_as_they_are() {
        assert!(same(&json!(16), "16"));
        assert!(same(&json!("0x40915f0107"), "0x40915f0107"));
        assert!(same(&json!(-1), "-1"));
        assert!(same(&json!("user"), "user"));
        assert!(!same(&json!("user"), "kernel"));
        assert!(!same(&json!(1), "enabled"));
        assert!(!same(&json!([]), ""));
    }
}
