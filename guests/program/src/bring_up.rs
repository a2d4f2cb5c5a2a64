//! Bringing the accelerator up through the stock driver, as an administrator does.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

const DEVICES: &str = "/sys/bus/dsa/devices";
const DRIVERS: &str = "/sys/bus/dsa/drivers";

/// How long the kernel may take to show a device or a file.
const PATIENCE: Duration = Duration::from_secs(10);

/// Entries of each queue, where the device has so many.
const QUEUE_ENTRIES: u64 = 16;

/// An accelerator that the kernel has enabled.
#[derive(Debug, Clone)]
pub struct Accelerator {
    /// The driver's name for it, such as `dsa0`.
    pub name: String,
    number: u32,
}

impl Accelerator {
    /// The device file of its queue.
    #[must_use]
    pub fn queue_path(&self) -> PathBuf {
        PathBuf::from(format!("/dev/dsa/{}", self.queue_name()))
    }

    /// The sysfs folder of its PCI function.
    ///
    /// # Errors
    /// sysfs does not say.
    pub fn pci_folder(&self) -> anyhow::Result<PathBuf> {
        let folder = fs::canonicalize(self.folder())
            .with_context(|| format!("cannot find {} in sysfs", self.name))?;
        let parent = folder.parent().context("the accelerator has no parent")?;
        Ok(parent.to_owned())
    }

    /// The largest copy that its queue takes, in bytes.
    ///
    /// # Errors
    /// sysfs does not say.
    pub fn max_transfer_bytes(&self) -> anyhow::Result<u64> {
        read_number(&self.queue_folder().join("max_transfer_size"))
    }

    /// How many entries its queue is given.
    ///
    /// # Errors
    /// sysfs does not say how many there are.
    pub fn queue_entries(&self) -> anyhow::Result<u64> {
        let most = read_number(&self.folder().join("max_work_queues_size"))?;
        Ok(QUEUE_ENTRIES.min(most))
    }

    /// Waits until the device file of its queue is there.
    ///
    /// # Errors
    /// It does not come.
    pub fn wait_for_queue(&self) -> anyhow::Result<()> {
        wait_for(&self.queue_path())
    }

    fn folder(&self) -> PathBuf {
        Path::new(DEVICES).join(&self.name)
    }

    fn queue_name(&self) -> String {
        format!("wq{}.0", self.number)
    }

    fn queue_folder(&self) -> PathBuf {
        Path::new(DEVICES).join(self.queue_name())
    }

    fn command_status(&self) -> String {
        let file = self.folder().join("cmd_status");
        fs::read_to_string(file).map_or_else(|e| e.to_string(), |text| text.trim().to_owned())
    }

    /// Engine and queue into group 0, everything enabled.
    ///
    /// # Errors
    /// The kernel refuses a step; the error says which and what the device answered.
    pub fn enable(&self, kind: QueueKind) -> anyhow::Result<()> {
        let engine = Path::new(DEVICES).join(format!("engine{}.0", self.number));
        write(&engine.join("group_id"), "0")?;
        let entries = self.queue_entries()?.to_string();
        let queue = self.queue_folder();
        let steps = [
            ("group_id", "0"),
            ("mode", kind.mode()),
            ("priority", "10"),
            ("size", entries.as_str()),
            ("type", kind.name()),
            ("name", kind.queue_name()),
        ];
        for (file, value) in steps {
            write(&queue.join(file), value)?;
        }
        if kind == QueueKind::Shared {
            // From so many entries on a submission is sent back. The kernel wants it after the size.
            write(&queue.join("threshold"), &entries)?;
        }
        // Newer kernels want to be told which driver the queue is for, and let it block; older have no
        // such files.
        for (file, value) in [
            ("driver_name", kind.driver()),
            ("block_on_fault", kind.blocks()),
        ] {
            let path = queue.join(file);
            if path.exists() {
                write(&path, value)?;
            }
        }
        self.bind("idxd", &self.name)?;
        self.bind(kind.driver(), &self.queue_name())?;
        match kind {
            QueueKind::User | QueueKind::Shared => self.wait_for_queue(),
            QueueKind::Kernel => Ok(()),
        }
    }

    /// Queue and device disabled, as before [`Accelerator::enable`].
    ///
    /// # Errors
    /// The kernel refuses a step.
    pub fn disable(&self, kind: QueueKind) -> anyhow::Result<()> {
        self.unbind(kind.driver(), &self.queue_name())?;
        self.unbind("idxd", &self.name)
    }

    fn unbind(&self, driver: &str, device: &str) -> anyhow::Result<()> {
        write(&Path::new(DRIVERS).join(driver).join("unbind"), device)
    }

    fn bind(&self, driver: &str, device: &str) -> anyhow::Result<()> {
        write(&Path::new(DRIVERS).join(driver).join("bind"), device).with_context(|| {
            format!(
                "cannot bind {device} to {driver}, command status {}",
                self.command_status()
            )
        })
    }
}

/// Who uses a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueKind {
    /// A process, which opens its device file.
    User,
    /// Processes at a time, each of which says in its descriptors whose addresses they have.
    Shared,
    /// The kernel, which has its descriptors and records mapped by its DMA interface.
    Kernel,
}

impl QueueKind {
    fn name(self) -> &'static str {
        match self {
            Self::User | Self::Shared => "user",
            Self::Kernel => "kernel",
        }
    }

    fn mode(self) -> &'static str {
        match self {
            Self::User | Self::Kernel => "dedicated",
            Self::Shared => "shared",
        }
    }

    fn driver(self) -> &'static str {
        match self {
            Self::User | Self::Shared => "user",
            Self::Kernel => "dmaengine",
        }
    }

    fn queue_name(self) -> &'static str {
        match self {
            Self::User | Self::Shared => "palisade",
            Self::Kernel => "dmaengine",
        }
    }

    fn blocks(self) -> &'static str {
        match self {
            Self::User | Self::Shared => "1",
            Self::Kernel => "0",
        }
    }
}

/// Finds `count` accelerators and enables the first queue of each, dedicated and for user processes.
///
/// # Errors
/// There are fewer, or the kernel refuses a step; the error says which and what the device answered.
pub fn bring_up(count: usize) -> anyhow::Result<Vec<Accelerator>> {
    let accelerators = find_accelerators(count)?;
    for accelerator in &accelerators {
        accelerator.enable(QueueKind::User)?;
    }
    Ok(accelerators)
}

/// Finds `count` accelerators, and leaves them as they are.
///
/// # Errors
/// There are fewer: the driver did not accept the functions.
pub fn find_accelerators(count: usize) -> anyhow::Result<Vec<Accelerator>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut numbers: Vec<u32> = fs::read_dir(DEVICES)
            .map(|entries| {
                entries
                    .filter_map(|entry| number_of(entry.ok()?.file_name().to_str()?))
                    .collect()
            })
            .unwrap_or_default();
        if numbers.len() >= count {
            numbers.sort_unstable();
            numbers.truncate(count);
            let accelerator = |number| Accelerator {
                name: format!("dsa{number}"),
                number,
            };
            return Ok(numbers.into_iter().map(accelerator).collect());
        }
        ensure!(
            Instant::now() < deadline,
            "the kernel shows {} accelerators under {DEVICES}, {count} are wanted: its driver did not \
             accept the functions",
            numbers.len()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The number in `dsaN`.
fn number_of(name: &str) -> Option<u32> {
    let number = name.strip_prefix("dsa")?;
    let digits = number.bytes().all(|b| b.is_ascii_digit());
    number.parse().ok().filter(|_| digits)
}

fn read_number(file: &Path) -> anyhow::Result<u64> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    text.trim()
        .parse()
        .with_context(|| format!("{} holds {text:?}", file.display()))
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
        assert_eq!(number_of("dsa0"), Some(0));
        assert_eq!(number_of("dsa12"), Some(12));
        assert_eq!(number_of("dsa"), None);
        assert_eq!(number_of("dsa+1"), None);
        assert_eq!(number_of("wq0.0"), None);
        assert_eq!(number_of("dsa0x"), None);
    }
}
