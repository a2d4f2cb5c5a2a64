//! Bringing the accelerator up through the stock driver, as an administrator does.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

const DEVICES: &str = "/sys/bus/dsa/devices";
const DRIVERS: &str = "/sys/bus/dsa/drivers";

/// How long the kernel may take to show a device or a file.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is done with a work queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueState {
    /// Configured, enabled and open for processes.
    Enabled,
    /// Configured and left alone.
    Configured,
}

/// A dedicated work queue for user processes.
#[derive(Debug, Clone, Copy)]
pub struct QueuePlan {
    /// Which of the device's queues.
    pub index: usize,
    /// Its number of entries.
    pub entries: u32,
    /// What is done with it.
    pub state: QueueState,
}

/// An accelerator that the kernel has enabled.
#[derive(Debug, Clone)]
pub struct Accelerator {
    /// The driver's name for it, such as `dsa0`.
    pub name: String,
    number: String,
}

impl Accelerator {
    /// The device file of one of its queues.
    #[must_use]
    pub fn queue_path(&self, index: usize) -> PathBuf {
        PathBuf::from(format!("/dev/dsa/wq{}.{index}", self.number))
    }

    /// The sysfs folder of its PCI function.
    ///
    /// # Errors
    /// sysfs does not say.
    pub fn pci_folder(&self) -> anyhow::Result<PathBuf> {
        let folder = fs::canonicalize(Path::new(DEVICES).join(&self.name))
            .with_context(|| format!("cannot find {} in sysfs", self.name))?;
        let parent = folder.parent().context("the accelerator has no parent")?;
        Ok(parent.to_owned())
    }

    /// The largest copy that one of its queues takes, in bytes.
    ///
    /// # Errors
    /// sysfs does not say.
    pub fn max_transfer_bytes(&self, queue: usize) -> anyhow::Result<u64> {
        let file = self.queue_folder(queue).join("max_transfer_size");
        let text =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        text.trim()
            .parse()
            .with_context(|| format!("{} holds {text:?}", file.display()))
    }

    fn queue_folder(&self, index: usize) -> PathBuf {
        Path::new(DEVICES).join(format!("wq{}.{index}", self.number))
    }

    fn command_status(&self) -> String {
        let file = Path::new(DEVICES).join(&self.name).join("cmd_status");
        fs::read_to_string(file).map_or_else(|e| e.to_string(), |text| text.trim().to_owned())
    }
}

/// Finds the one accelerator, puts an engine and the queues into group 0, and enables it and them.
///
/// # Errors
/// There is no accelerator, or the kernel refuses a step; the error says which and what the device answered.
pub fn bring_up(plans: &[QueuePlan]) -> anyhow::Result<Accelerator> {
    let accelerator = find()?;
    let engine = Path::new(DEVICES).join(format!("engine{}.0", accelerator.number));
    write(&engine.join("group_id"), "0")?;
    for plan in plans {
        configure(&accelerator, *plan)?;
    }
    bind("idxd", &accelerator.name, &accelerator)?;
    for plan in plans {
        if plan.state == QueueState::Configured {
            continue;
        }
        let name = format!("wq{}.{}", accelerator.number, plan.index);
        bind("user", &name, &accelerator)?;
        wait_for(&accelerator.queue_path(plan.index))?;
    }
    Ok(accelerator)
}

fn find() -> anyhow::Result<Accelerator> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut names: Vec<String> = fs::read_dir(DEVICES)
            .map(|entries| {
                entries
                    .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
                    .filter(|name| number_of(name).is_some())
                    .collect()
            })
            .unwrap_or_default();
        names.sort();
        if let Some(name) = names.into_iter().next() {
            let number = number_of(&name)
                .context("a name without a number")?
                .to_owned();
            return Ok(Accelerator { name, number });
        }
        ensure!(
            Instant::now() < deadline,
            "the kernel shows no accelerator under {DEVICES}: its driver did not accept the function"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The number in `dsaN`.
fn number_of(name: &str) -> Option<&str> {
    let number = name.strip_prefix("dsa")?;
    (!number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())).then_some(number)
}

fn configure(accelerator: &Accelerator, plan: QueuePlan) -> anyhow::Result<()> {
    let folder = accelerator.queue_folder(plan.index);
    let entries = plan.entries.to_string();
    let name = format!("palisade{}", plan.index);
    let steps = [
        ("group_id", "0"),
        ("mode", "dedicated"),
        ("priority", "10"),
        ("size", entries.as_str()),
        ("type", "user"),
        ("name", name.as_str()),
    ];
    for (file, value) in steps {
        write(&folder.join(file), value)?;
    }
    // Since Linux 6.8 a queue names the driver that it is for; before, there is no such file.
    for (file, value) in [("driver_name", "user"), ("block_on_fault", "1")] {
        let path = folder.join(file);
        if path.exists() {
            write(&path, value)?;
        }
    }
    Ok(())
}

fn bind(driver: &str, device: &str, accelerator: &Accelerator) -> anyhow::Result<()> {
    write(&Path::new(DRIVERS).join(driver).join("bind"), device).with_context(|| {
        format!(
            "cannot bind {device} to {driver}, command status {}",
            accelerator.command_status()
        )
    })
}

fn write(path: &Path, value: &str) -> anyhow::Result<()> {
    fs::write(path, value).with_context(|| format!("cannot write {value:?} to {}", path.display()))
}

fn wait_for(path: &Path) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !path.exists() {
        if Instant::now() > deadline {
            bail!("the kernel does not show {}", path.display());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accelerator_is_told_from_its_parts_by_name() {
        assert_eq!(number_of("dsa0"), Some("0"));
        assert_eq!(number_of("dsa12"), Some("12"));
        assert_eq!(number_of("dsa"), None);
        assert_eq!(number_of("wq0.0"), None);
        assert_eq!(number_of("dsa0x"), None);
    }
}
