//! Set-up: everything that guests need, under `target/guest`. Done once, then instant.
//!
//! The distribution's packages are downloaded and unpacked, not installed; QEMU runs by the C library that came with
//! it. Each part is built beside its place and renamed into it, so that a part is whole or absent.

mod accel_config;
mod elf_modules;
mod linux;
mod part;
mod program;
mod qemu;
mod vcmd_module;

use std::cell::OnceCell;
use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::{Context, ensure};

use crate::Layout;
use crate::apt::{Mirrors, Release, Tree};

pub use accel_config::AccelConfig;

/// A kernel and its modules, unpacked.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// What the kernel calls itself.
    pub release: String,
    /// The image to boot.
    pub image: PathBuf,
    /// Modules, each after those that it needs.
    pub modules: Vec<KernelModule>,
}

/// How a kernel is made to believe that its processor has MOVDIR64B, without which the accelerator's driver does
/// not load. Emulation has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Movdir64b {
    /// By a word on its command line.
    KernelArgument,
    /// By the processor, which claims what it cannot do.
    Processor,
}

impl Kernel {
    /// What this kernel understands.
    pub(crate) fn movdir64b(&self) -> Movdir64b {
        // `setcpuid=` came with 6.15.
        let mut numbers = self.release.split(['.', '-', '+']).map(str::parse::<u32>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= (6, 15) => {
                Movdir64b::KernelArgument
            }
            _ => Movdir64b::Processor,
        }
    }
}

/// A module, decompressed.
#[derive(Debug, Clone)]
pub struct KernelModule {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub file: PathBuf,
    /// Who loads it.
    pub load: Load,
}

/// When a module is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// By the image's script, before the program starts.
    AtBoot,
    /// By the scenario, together with all that are for VFIO.
    WithVfio,
    /// By the scenario, when it wants to.
    ByScenario,
}

/// What to do about parts that are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Use them.
    Keep,
    /// Look for newer packages and make them anew.
    Renew,
}

/// All that set-up has made.
#[derive(Debug)]
pub struct Setup {
    /// The starter of QEMU.
    pub qemu: PathBuf,
    /// QEMU's version as it tells it.
    pub qemu_version: String,
    /// A static busybox.
    pub busybox: PathBuf,
    /// The static guest program.
    pub program: PathBuf,
    /// The newest kernel: shared virtual addressing.
    pub newest: Kernel,
    /// Linux 6.12, the distribution's stable one.
    pub stable: Kernel,
    /// Linux 6.1: the kernel's own PASID allocator, with the module that tests it.
    pub allocator: Kernel,
    /// The tool that configures accelerators, for the images that want it.
    pub accel_config: AccelConfig,
    // Two runs would overwrite each other's parts and logs.
    _lock: File,
}

/// Makes what is missing, and says what it downloads.
///
/// # Errors
/// Something can be neither found nor downloaded nor built. Nothing is skipped.
pub fn prepare(layout: &Layout, freshness: Freshness) -> anyhow::Result<Setup> {
    ensure!(
        cfg!(all(target_arch = "x86_64", target_os = "linux")),
        "guests are x86-64 machines on a QEMU from the distribution's x86-64 packages: \
         they run on x86-64 Linux only"
    );
    let lock = lock(layout)?;
    if freshness == Freshness::Renew {
        for part in [
            qemu::PART,
            linux::NEWEST_PART,
            linux::STABLE_PART,
            linux::ALLOCATOR_PART,
            accel_config::PART,
        ] {
            part::forget(layout, part)?;
        }
    }
    let downloads = Downloads::new(layout);
    let qemu = qemu::prepare(layout, &downloads)?;
    let newest = linux::prepare_newest(layout, &downloads, &qemu)?;
    let stable = linux::prepare_stable(layout, &downloads, &qemu)?;
    let (mut allocator, headers) = linux::prepare_allocator(layout, &downloads, &qemu)?;
    let accel_config = accel_config::prepare(layout, &downloads)?;
    downloads.discard()?;
    allocator
        .modules
        .push(vcmd_module::build(layout, &headers)?);
    let program = program::build(layout)?;
    Ok(Setup {
        qemu: qemu.starter,
        qemu_version: qemu.version,
        busybox: qemu.busybox,
        program,
        newest,
        stable,
        allocator,
        accel_config,
        _lock: lock,
    })
}

fn lock(layout: &Layout) -> anyhow::Result<File> {
    let folder = layout.guest();
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let lock = File::create(folder.join("lock"))?;
    if lock.try_lock().is_err() {
        println!("waiting for another run that uses {}", folder.display());
        lock.lock()?;
    }
    Ok(lock)
}

/// The package managers' states, made when the first part asks for one.
#[derive(Debug)]
struct Downloads {
    folder: PathBuf,
    mirrors: OnceCell<Mirrors>,
    newest: OnceCell<Tree>,
    allocator: OnceCell<Tree>,
}

impl Downloads {
    fn new(layout: &Layout) -> Self {
        Self {
            folder: layout.part("apt"),
            mirrors: OnceCell::new(),
            newest: OnceCell::new(),
            allocator: OnceCell::new(),
        }
    }

    /// QEMU's, the newest and the stable kernel's, and that of `accel-config`.
    fn newest(&self) -> anyhow::Result<&Tree> {
        self.tree(&self.newest, Release::TRIXIE_BACKPORTS)
    }

    /// Linux 6.1's.
    fn allocator(&self) -> anyhow::Result<&Tree> {
        self.tree(&self.allocator, Release::BOOKWORM)
    }

    fn tree<'a>(&self, cell: &'a OnceCell<Tree>, release: Release) -> anyhow::Result<&'a Tree> {
        if let Some(tree) = cell.get() {
            return Ok(tree);
        }
        let mirrors = match self.mirrors.get() {
            Some(mirrors) => mirrors.clone(),
            None => {
                let found = Mirrors::of_this_machine()?;
                self.mirrors.get_or_init(|| found).clone()
            }
        };
        let folder = self.folder.join(release.codename);
        let tree = Tree::open(&folder, release, &mirrors)?;
        Ok(cell.get_or_init(|| tree))
    }

    /// Gives the disk back: the parts have what they need.
    fn discard(self) -> anyhow::Result<()> {
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder)
                .with_context(|| format!("cannot remove {}", self.folder.display()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_kernels_are_told_of_movdir64b_by_the_processor() {
        let movdir64b = |release: &str| {
            let kernel = Kernel {
                release: release.to_owned(),
                image: PathBuf::new(),
                modules: Vec::new(),
            };
            kernel.movdir64b()
        };
        assert_eq!(movdir64b("6.1.0-56-amd64"), Movdir64b::Processor);
        assert_eq!(movdir64b("6.12.107+deb13-amd64"), Movdir64b::Processor);
        assert_eq!(movdir64b("6.15-amd64"), Movdir64b::KernelArgument);
        assert_eq!(movdir64b("7.3.4+deb13-amd64"), Movdir64b::KernelArgument);
    }
}
