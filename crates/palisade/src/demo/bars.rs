//! Progress on a terminal.

use std::collections::BTreeMap;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Progress;

/// One bar for each tenant, drawn to standard error.
pub(super) struct Bars {
    all: MultiProgress,
    each: BTreeMap<usize, ProgressBar>,
}

impl Bars {
    pub(super) fn new(progress: Progress) -> Self {
        let target = match progress {
            Progress::Bars => ProgressDrawTarget::stderr(),
            Progress::Quiet => ProgressDrawTarget::hidden(),
        };
        Self {
            all: MultiProgress::with_draw_target(target),
            each: BTreeMap::new(),
        }
    }

    pub(super) fn show(&mut self, name: &str, tenant: usize, done: u64, of: u64, what: &str) {
        let bar = self.each.entry(tenant).or_insert_with(|| {
            let bar = self.all.add(ProgressBar::new(of));
            let style = "{prefix:>6} {wide_bar} {percent:>3}% {msg:<32}";
            if let Ok(style) = ProgressStyle::with_template(style) {
                bar.set_style(style);
            }
            bar.with_prefix(name.to_owned())
        });
        bar.set_length(of);
        bar.set_message(what.to_owned());
        bar.set_position(done);
    }

    pub(super) fn clear(&self) {
        // A terminal that went away is no reason to fail.
        let _ = self.all.clear();
    }
}
