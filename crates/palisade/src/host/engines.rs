//! The threads that do a parent's work.

use std::{io, sync::Arc, thread::JoinHandle};

use palisade_dsa::{Doorbell, Engine, Progress};

use super::bell::Bell;

/// How many pieces of work an engine does before it looks at the bell again.
const BUDGET: u32 = 64;

impl Doorbell for Bell {
    fn ring(&self) {
        Bell::ring(self);
    }
}

/// The engine threads of one parent.
pub(crate) struct Engines {
    bell: Arc<Bell>,
    threads: Vec<JoinHandle<()>>,
}

impl Engines {
    /// Starts a thread for each engine.
    pub(crate) fn start(
        name: &str,
        bell: Arc<Bell>,
        engines: impl IntoIterator<Item = Engine>,
    ) -> io::Result<Self> {
        let mut started = Self {
            bell,
            threads: Vec::new(),
        };
        for (index, engine) in engines.into_iter().enumerate() {
            let bell = Arc::clone(&started.bell);
            let thread = std::thread::Builder::new()
                .name(format!("{name}-engine{index}"))
                .spawn(move || work(engine, &bell))?;
            started.threads.push(thread);
        }
        Ok(started)
    }

    /// The bell at which they wait.
    pub(crate) fn bell(&self) -> Arc<Bell> {
        Arc::clone(&self.bell)
    }

    pub(crate) fn stop(&mut self) {
        self.bell.stop();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("an engine's thread panicked");
            }
        }
    }
}

impl Drop for Engines {
    fn drop(&mut self) {
        self.stop();
    }
}

fn work(mut engine: Engine, bell: &Bell) {
    let mut removals = bell.removals();
    while !bell.stopped() {
        let seen = bell.rings();
        // Cached translations to memory that was removed lead nowhere, but they keep it mapped.
        let removed = bell.removals();
        if removed != removals {
            removals = removed;
            engine.forget_stale();
        }
        if matches!(engine.run(BUDGET), Progress::Idle) {
            bell.wait(seen);
        }
    }
}
