use anyhow::{Result, bail};

/// How much a run measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// As many rounds as a figure worth quoting needs.
    Full,
    /// Under 20 seconds for a bench, to see that it works and roughly where it stands.
    Quick,
}

impl Effort {
    /// How many rounds the median is taken of.
    #[must_use]
    pub const fn rounds(self) -> usize {
        match self {
            Self::Full => 31,
            Self::Quick => 9,
        }
    }

    /// How many operations a contender does in a round, for a bench that would do `full` of them.
    #[must_use]
    pub const fn operations(self, full: usize) -> usize {
        match self {
            Self::Full => full,
            Self::Quick => full / 4,
        }
    }
}

/// What a run prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// A table, with notes on the machine.
    Table,
    /// One JSON document; notes go to standard error.
    Json,
}

/// The arguments of a bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How much to measure.
    pub effort: Effort,
    /// What to print.
    pub output: Output,
}

impl Options {
    /// Reads the arguments after the program's name. `None` when it was not `cargo bench` that
    /// started the program: `cargo test --all-targets` runs benches too, and then nothing is measured.
    ///
    /// # Errors
    /// An argument that is not known, with those that are.
    pub fn parse<I, S>(arguments: I) -> Result<Option<Self>>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<str>,
    {
        let mut options = Self {
            effort: Effort::Full,
            output: Output::Table,
        };
        let mut from_cargo_bench = false;
        let mut unknown = None;
        for argument in arguments {
            match argument.as_ref() {
                "--bench" => from_cargo_bench = true,
                "--json" => options.output = Output::Json,
                "--quick" => options.effort = Effort::Quick,
                other => unknown = Some(other.to_owned()),
            }
        }
        if !from_cargo_bench {
            return Ok(None);
        }
        if let Some(unknown) = unknown {
            bail!("{unknown} is not an option of a bench: there are --json and --quick");
        }
        Ok(Some(options))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_measured_unless_cargo_bench_asks() {
        assert_eq!(Options::parse([""; 0]).unwrap(), None);
        assert_eq!(Options::parse(["--test-threads=1"]).unwrap(), None);
    }

    #[test]
    fn quick_and_json_are_known_and_others_are_named() {
        let options = Options::parse(["--json", "--quick", "--bench"]).unwrap();
        let expected = Options {
            effort: Effort::Quick,
            output: Output::Json,
        };
        assert_eq!(options, Some(expected));
        let error = Options::parse(["--bench", "--jsn"]).unwrap_err();
        assert!(error.to_string().contains("--jsn"), "{error}");
    }

    #[test]
    fn every_effort_takes_at_least_seven_rounds() {
        assert!(Effort::Quick.rounds() >= 7);
        assert!(Effort::Full.rounds() > Effort::Quick.rounds());
    }
}
