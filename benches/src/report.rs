use std::fmt;

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::{Output, cpu_name};

/// What a figure counts, which says whether less of it is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Unit {
    /// Nanoseconds for one operation: less is better.
    #[serde(rename = "ns")]
    Nanoseconds,
    /// Gigabytes in a second: more is better.
    #[serde(rename = "GB/s")]
    GigabytesPerSecond,
}

impl Unit {
    /// How many times better ours is.
    fn ratio(self, ours: f64, peer: f64) -> f64 {
        match self {
            Self::Nanoseconds => peer / ours,
            Self::GigabytesPerSecond => ours / peer,
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Nanoseconds => "ns",
            Self::GigabytesPerSecond => "GB/s",
        })
    }
}

/// One figure of ours beside a peer's, from the same rounds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ratio {
    name: String,
    ours: f64,
    peer: f64,
    peer_name: String,
    unit: Unit,
    ratio: f64,
    /// `None`, as whether it is met: the ratio is told for what it is.
    goal: Option<f64>,
    met: Option<bool>,
}

/// All that a bench has to say.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    bench: &'static str,
    cpu: String,
    rounds: usize,
    ratios: Vec<Ratio>,
}

impl Report {
    /// An empty report of a bench, on this machine.
    #[must_use]
    pub fn new(bench: &'static str, rounds: usize) -> Self {
        Self {
            bench,
            cpu: cpu_name(),
            rounds,
            ratios: Vec::new(),
        }
    }

    /// Adds a line: medians of both sides, and how many times better ours is to be at least.
    pub fn add(
        &mut self,
        name: impl Into<String>,
        unit: Unit,
        both: (f64, f64),
        peer_name: impl Into<String>,
        goal: f64,
    ) {
        self.push(name.into(), unit, both, peer_name.into(), Some(goal));
    }

    /// Adds a line that has no goal: medians of both sides.
    pub fn add_without_goal(
        &mut self,
        name: impl Into<String>,
        unit: Unit,
        both: (f64, f64),
        peer_name: impl Into<String>,
    ) {
        self.push(name.into(), unit, both, peer_name.into(), None);
    }

    fn push(
        &mut self,
        name: String,
        unit: Unit,
        (ours, peer): (f64, f64),
        peer_name: String,
        goal: Option<f64>,
    ) {
        let ratio = unit.ratio(ours, peer);
        self.ratios.push(Ratio {
            name,
            ours: rounded(ours),
            peer: rounded(peer),
            peer_name,
            unit,
            ratio: rounded(ratio),
            goal,
            met: goal.map(|goal| ratio >= goal),
        });
    }

    /// Prints the report.
    ///
    /// # Errors
    /// A report without lines, which would read as if nothing was unmet.
    pub fn print(&self, output: Output) -> Result<()> {
        ensure!(!self.ratios.is_empty(), "{} measured nothing", self.bench);
        match output {
            Output::Table => print!("{self}"),
            Output::Json => println!("{}", serde_json::to_string(self)?),
        }
        Ok(())
    }
}

/// Three digits are more than the machine can repeat.
fn rounded(figure: f64) -> f64 {
    let scale = if figure < 10.0 { 1000.0 } else { 10.0 };
    (figure * scale).round() / scale
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: medians of {} rounds on {}",
            self.bench, self.rounds, self.cpu
        )?;
        writeln!(
            f,
            "{:<36} {:>10} {:>10} {:<5} {:>8} {:>8}  {:<5} peer",
            "name", "ours", "peer", "unit", "ratio", "goal", "met"
        )?;
        for line in &self.ratios {
            let goal = line.goal.map_or("-".to_owned(), |goal| goal.to_string());
            let met = match line.met {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "-",
            };
            writeln!(
                f,
                "{:<36} {:>10} {:>10} {:<5} {:>8} {:>8}  {:<5} {}",
                line.name, line.ours, line.peer, line.unit, line.ratio, goal, met, line.peer_name,
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::new("translate", 9);
        report.cpu = "a CPU".to_owned();
        let hit = (7.1, 92.0);
        report.add("hit", Unit::Nanoseconds, hit, "vm-memory 0.18", 10.0);
        let crc = (20.0, 40.0);
        report.add("crc", Unit::GigabytesPerSecond, crc, "crc-fast", 0.9);
        report
    }

    #[test]
    fn the_document_has_the_agreed_names_in_the_agreed_order() {
        let expected = concat!(
            r#"{"bench":"translate","cpu":"a CPU","rounds":9,"ratios":["#,
            r#"{"name":"hit","ours":7.1,"peer":92.0,"peer_name":"vm-memory 0.18","unit":"ns","#,
            r#""ratio":13.0,"goal":10.0,"met":true},"#,
            r#"{"name":"crc","ours":20.0,"peer":40.0,"peer_name":"crc-fast","unit":"GB/s","#,
            r#""ratio":0.5,"goal":0.9,"met":false}]}"#
        );
        assert_eq!(serde_json::to_string(&report()).unwrap(), expected);
    }

    #[test]
    fn a_goal_that_is_just_missed_is_not_met_by_rounding() {
        let mut report = Report::new("x", 7);
        report.add("near", Unit::Nanoseconds, (10.0, 99.9999), "peer", 10.0);
        assert_eq!(report.ratios[0].ratio, 10.0);
        assert_eq!(report.ratios[0].met, Some(false));
    }

    #[test]
    fn a_line_without_a_goal_is_neither_met_nor_unmet() {
        let mut report = Report::new("x", 7);
        report.add_without_goal("alone", Unit::Nanoseconds, (10.0, 20.0), "peer");
        let document = serde_json::to_string(&report).unwrap();
        let end = r#""ratio":2.0,"goal":null,"met":null}]}"#;
        assert!(document.ends_with(end), "{document}");
        let table = report.to_string();
        assert!(!table.contains("NO") && !table.contains("yes"), "{table}");
    }

    #[test]
    fn the_table_has_a_line_for_each_ratio_and_says_what_is_not_met() {
        let table = report().to_string();
        assert_eq!(table.lines().count(), 4, "{table}");
        assert!(table.contains("medians of 9 rounds on a CPU"), "{table}");
        let unmet: Vec<&str> = table.lines().filter(|line| line.contains("NO")).collect();
        assert_eq!(unmet.len(), 1, "{table}");
        assert!(unmet[0].starts_with("crc"), "{table}");
    }

    #[test]
    fn a_report_of_nothing_is_an_error() {
        assert!(Report::new("x", 7).print(Output::Json).is_err());
    }
}
