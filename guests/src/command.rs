//! Running other programs and saying what went wrong with them.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, anyhow, bail};

/// So many lines of a failed program's words go into the error.
const TOLD_LINES: usize = 15;

/// Runs `command` to its end and returns what it wrote to standard output.
///
/// # Errors
/// It cannot be started, or fails; the error has its last words.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<String> {
    String::from_utf8(run_for_bytes(command)?)
        .with_context(|| format!("{} wrote something that is not text", name_of(command)))
}

/// As [`run`], for output that need not be text.
pub(crate) fn run_for_bytes(command: &mut Command) -> anyhow::Result<Vec<u8>> {
    let name = name_of(command);
    let output = command
        .stdin(Stdio::null())
        // Other programs' messages are read here: they must not be translated.
        .env("LC_ALL", "C")
        .output()
        .map_err(|error| match error.kind() {
            ErrorKind::NotFound => anyhow!("{name} is not on this machine; please install it"),
            _ => anyhow!(error).context(format!("cannot start {name}")),
        })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let mut said = String::from_utf8_lossy(&output.stderr).into_owned();
    if said.trim().is_empty() {
        said = String::from_utf8_lossy(&output.stdout).into_owned();
    }
    let lines: Vec<&str> = said.lines().collect();
    let last = &lines[lines.len().saturating_sub(TOLD_LINES)..];
    bail!("{name} ended with {}:\n{}", output.status, last.join("\n"))
}

fn name_of(command: &Command) -> String {
    let path = PathBuf::from(command.get_program());
    path.file_name().map_or_else(
        || path.display().to_string(),
        |name| name.to_string_lossy().into_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_returned_and_failure_is_told() {
        assert_eq!(run(Command::new("echo").arg("hello")).unwrap(), "hello\n");
        let error = run(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err();
        assert!(error.to_string().contains("exit status: 3"), "{error}");
        assert!(error.to_string().ends_with("why"), "{error}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = run(&mut Command::new("no-such-program-anywhere")).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("no-such-program-anywhere is not on this machine")
        );
    }
}
