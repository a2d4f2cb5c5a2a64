//! A tenant's process as the host's process sees it.

use std::{
    io::{BufRead, BufReader, Write},
    process::{ChildStdin, Stdio},
    sync::mpsc::Sender,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};

use super::wire::{Command, Event, Order};

/// A running tenant; dropping it ends the process.
pub(super) struct Child {
    pub(super) name: String,
    process: std::process::Child,
    input: Option<ChildStdin>,
}

impl Child {
    /// Starts this program again as a tenant. Its events arrive as (`index`, event).
    pub(super) fn start(
        index: usize,
        order: &Order,
        events: Sender<(usize, Event)>,
    ) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("find this program")?;
        let mut process = std::process::Command::new(program)
            .arg("demo-tenant")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start a tenant")?;
        let output = process.stdout.take().context("no output of the tenant")?;
        let input = process.stdin.take();
        let mut child = Self {
            name: order.name.clone(),
            process,
            input,
        };
        child.line(order)?;
        thread::Builder::new()
            .name(format!("{}-events", order.name))
            .spawn(move || {
                for line in BufReader::new(output).lines() {
                    let event = line.map_err(|e| e.to_string()).and_then(|line| {
                        serde_json::from_str(&line).map_err(|e| format!("said {line:?}: {e}"))
                    });
                    let event = event.unwrap_or_else(|what| Event::Failed { what });
                    if events.send((index, event)).is_err() {
                        return;
                    }
                }
                // After a finish nobody listens any more; before it, this is news.
                let what = "ended before its work was done".to_owned();
                let _ = events.send((index, Event::Failed { what }));
            })?;
        Ok(child)
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    fn line(&mut self, what: &impl serde::Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(what)?;
        line.push(b'\n');
        let input = self
            .input
            .as_mut()
            .context("the tenant was told to finish")?;
        input
            .write_all(&line)
            .with_context(|| format!("tell tenant {}", self.name))
    }

    pub(super) fn tell(&mut self, command: &Command) -> anyhow::Result<()> {
        self.line(command)
    }

    /// Waits for the end of the process.
    pub(super) fn wait(&mut self, deadline: Instant) -> anyhow::Result<()> {
        self.input = None;
        loop {
            if let Some(status) = self.process.try_wait()? {
                ensure!(status.success(), "tenant {} ended with {status}", self.name);
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("tenant {} does not end", self.name);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !matches!(self.process.try_wait(), Ok(Some(_))) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}
