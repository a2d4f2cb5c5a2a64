//! What the benches share: rounds, medians, the table and the document.
//!
//! `cargo bench -p palisade-benches --bench NAME` measures one room beside its peers and prints a
//! table; `-- --json` prints one JSON document instead, `-- --quick` takes fewer and shorter rounds.
//! Within a round every contender runs once, in an order that turns from round to round, so that a
//! slower minute of the machine falls on all of them; the figure is the median of the rounds.
//!
//! A ratio says how many times better ours is than the peer, so a goal is always "at least".
//!
//! What it will not do: compare with an earlier run, pin threads or wait for a quiet machine. Only
//! ratios of one run mean anything elsewhere, and on a machine with other work not even those mean much.

mod machine;
mod options;
mod percentile;
mod report;
mod rounds;
mod trace;

pub use machine::{cache_line_round_trip_ns, cpu_name, load_average};
pub use options::{Effort, Options, Output};
pub use percentile::percentile;
pub use report::{Ratio, Report, Unit};
pub use rounds::{Contender, medians};
pub use trace::Random;
