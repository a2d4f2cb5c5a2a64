//! The function in the hands of a program: VFIO with its type 1 IOMMU, as a VMM or a user-space driver has it.
//!
//! There are no PASIDs: what the device is told are addresses that this program chose and mapped.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use vfio_ioctls::{VfioContainer, VfioDevice};

use crate::buffer::Buffer;
use crate::dsa::{Descriptor, registers as reg};
use crate::modules::{self, Set};

/// Regions as VFIO numbers them: BARs by their number, then the ROM, then configuration space.
const REGISTERS: u32 = 0;
const PORTALS: u32 = 2;
const CONFIGURATION: u32 = 7;

/// The command word of configuration space.
const COMMAND: u64 = 4;
/// It: memory space, bus master.
const MEMORY_AND_MASTER: u16 = 0b110;

/// Without an interrupt remapper, which this unit has not, interrupts are not confined.
const UNSAFE_INTERRUPTS: &str = "/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts";

const DRIVER: &str = "vfio-pci";

/// How long a command, or a file of the kernel's, may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Descriptors that the queue holds.
const QUEUE_ENTRIES: u32 = 4;
/// The largest copy, as a power of two of bytes.
const LARGEST_SHIFT: u32 = 21;

/// Whether a queue makes use of the translations that the function keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ats {
    /// It leaves translating to the platform.
    Off,
    /// It does, where the kernel lets the function.
    On,
}

/// A function that `vfio-pci` has, and the address space that goes with it.
pub struct Function {
    device: VfioDevice,
    container: Arc<VfioContainer>,
    folder: PathBuf,
}

impl Function {
    /// Takes the function in `folder` of sysfs from whichever driver has it.
    ///
    /// # Errors
    /// The modules, the kernel or VFIO refuse; the error says which step.
    pub fn take(folder: &Path) -> anyhow::Result<Self> {
        modules::load(Set::Vfio)?;
        write(Path::new(UNSAFE_INTERRUPTS), "1")?;
        let name = name(folder)?;
        if folder.join("driver").exists() {
            write(&folder.join("driver/unbind"), &name)?;
        }
        write(&folder.join("driver_override"), DRIVER)?;
        write(Path::new("/sys/bus/pci/drivers_probe"), &name)?;
        let group = fs::canonicalize(folder.join("iommu_group"))
            .context("the function is in no group: no unit translates for it")?;
        let number = group.file_name().context("the group has no number")?;
        wait_for(&Path::new("/dev/vfio").join(number))?;
        let container = Arc::new(VfioContainer::new(None).context("the container")?);
        let device = VfioDevice::new(folder, container.clone()).context("the function")?;
        let function = Self {
            device,
            container,
            folder: folder.to_owned(),
        };
        let mut command = [0; 2];
        function
            .device
            .region_read(CONFIGURATION, &mut command, COMMAND);
        let command = u16::from_le_bytes(command) | MEMORY_AND_MASTER;
        function
            .device
            .region_write(CONFIGURATION, &command.to_le_bytes(), COMMAND);
        Ok(function)
    }

    /// Gives the function back to the kernel, for its own driver.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn give_back(self) -> anyhow::Result<()> {
        let Self {
            device,
            container,
            folder,
        } = self;
        drop(device);
        drop(container);
        let name = name(&folder)?;
        write(&folder.join("driver/unbind"), &name)?;
        write(&folder.join("driver_override"), "\n")?;
        write(Path::new("/sys/bus/pci/drivers_probe"), &name)
    }

    /// Lets the device read and write all of `buffer` at `iova`, in whole pages.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn map(&self, iova: u64, buffer: &Buffer) -> anyhow::Result<()> {
        let len = u64::try_from(buffer.len_bytes())?;
        self.container
            .vfio_dma_map(iova, len, buffer.address(0))
            .with_context(|| format!("{len} bytes cannot be mapped at {iova:#x}"))
    }

    /// Takes that away. When this returns, the device has no access any more.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn unmap(&self, iova: u64, buffer: &Buffer) -> anyhow::Result<()> {
        let len = u64::try_from(buffer.len_bytes())?;
        self.container
            .vfio_dma_unmap(iova, len)
            .with_context(|| format!("{len} bytes cannot be unmapped at {iova:#x}"))
    }

    /// Enables the first queue, dedicated and without a PASID, as the architecture says: tables, device, queue.
    ///
    /// # Errors
    /// The device refuses a command.
    pub fn enable_queue(&self, ats: Ats) -> anyhow::Result<()> {
        let version = self.load_u32(reg::VERSION);
        ensure!(
            version != 0 && version != u32::MAX,
            "the registers are not there: version {version:#x}"
        );
        self.command(reg::RESET_DEVICE, 0).context("reset")?;
        let offsets = self.load_u64(reg::OFFSETS);
        let queue = reg::wqcfg_table_offset(offsets);
        let group = reg::grpcfg_table_offset(offsets);
        let ats = match ats {
            Ats::Off => reg::WQCFG_ATS_DISABLE,
            Ats::On => 0,
        };
        let mode = reg::WQCFG_DEDICATED | ats | 10 << reg::WQCFG_PRIORITY_SHIFT;
        for (word, value) in [
            (queue + reg::WQCFG_SIZE_WORD, QUEUE_ENTRIES),
            (queue + reg::WQCFG_THRESHOLD_WORD, 0),
            (queue + reg::WQCFG_PASID_WORD, mode),
            (queue + reg::WQCFG_LIMITS_WORD, LARGEST_SHIFT),
            (group + reg::GRPCFG_QUEUES, 1),
            (group + reg::GRPCFG_ENGINES, 1),
        ] {
            self.store_u32(word, value);
        }
        self.command(reg::ENABLE_DEVICE, 0)
            .context("enabling the device")?;
        self.command(reg::ENABLE_WQ, 0)
            .context("enabling the queue")
    }

    /// Disables the queue and the device.
    ///
    /// # Errors
    /// The device refuses.
    pub fn disable(&self) -> anyhow::Result<()> {
        self.command(reg::RESET_DEVICE, 0)
    }

    /// Gives the device a descriptor by the queue's portal.
    pub fn submit(&self, descriptor: Descriptor) {
        let mut bytes = [0; 64];
        for (piece, word) in bytes.chunks_exact_mut(8).zip(descriptor.0) {
            piece.copy_from_slice(&word.to_le_bytes());
        }
        self.device.region_write(PORTALS, &bytes, 0);
    }

    fn command(&self, command: u32, operand: u32) -> anyhow::Result<()> {
        self.store_u32(reg::CMD, command << 20 | operand);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.load_u32(reg::CMDSTS);
            if status & reg::CMDSTS_ACTIVE == 0 {
                let error = status & 0xFF;
                ensure!(error == 0, "command {command}: error {error:#04x}");
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "command {command} does not complete"
            );
        }
    }

    /// Reads a register of BAR 0.
    pub(crate) fn load_u32(&self, at: usize) -> u32 {
        let mut bytes = [0; 4];
        self.device.region_read(REGISTERS, &mut bytes, at as u64);
        u32::from_le_bytes(bytes)
    }

    /// Reads a register of 64 bits, as two halves.
    pub(crate) fn load_u64(&self, at: usize) -> u64 {
        u64::from(self.load_u32(at)) | u64::from(self.load_u32(at + 4)) << 32
    }

    /// Writes a register of BAR 0.
    pub(crate) fn store_u32(&self, at: usize, value: u32) {
        self.device
            .region_write(REGISTERS, &value.to_le_bytes(), at as u64);
    }

    /// Writes a register of 64 bits in one access.
    pub(crate) fn store_u64(&self, at: usize, value: u64) {
        self.device
            .region_write(REGISTERS, &value.to_le_bytes(), at as u64);
    }
}

/// The function's place, as the kernel writes it.
fn name(folder: &Path) -> anyhow::Result<String> {
    let name = folder.file_name().context("the function has no name")?;
    Ok(name.to_string_lossy().into_owned())
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
