//! `matrix-KERNEL-SETTING`: each stock kernel, with each setting of its IOMMU driver. The unit comes up without a
//! fault in the log, the accelerator's driver finds its device, and the device works: for a process by its own addresses where the
//! kernel has that, and by VFIO, without PASIDs, everywhere.
//!
//! Shows R3 (what is not mapped is not reached), R6 (unmodified drivers), R37 (first stages of four and five levels, second stages),
//! R41 (an invalidation is obeyed), R59 (faults are recorded in the guest's names).

use std::time::Duration;

use anyhow::ensure;

use super::{Bench, Run, Scenario, expect_checks};
use crate::setup::{Kernel, Setup};
use crate::vm::{Console, Guest, Seen};

const PATIENCE: Duration = Duration::from_secs(300);

/// What each guest must have checked.
const CHECKS: &[&str] = &[
    "unit-up",
    "idxd",
    "vfio-bring-up",
    "vfio-copy",
    "vfio-forgotten",
    "vfio-unmapped",
    "vfio-mapped-again",
    "vfio-given-back",
    "kernel-queue",
];

/// How Linux starts to tell of a fault in scalable mode's tables.
const SCALABLE: &str = "] SM: ";

/// And where the kernel binds a process's addresses.
const SHARED_CHECK: &str = "sva";

/// A kernel of the distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Generation {
    V6_1,
    V6_12,
    Newest,
}

impl Generation {
    const ALL: [Self; 3] = [Self::V6_1, Self::V6_12, Self::Newest];

    fn name(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::Newest => "7",
        }
    }

    fn kernel(self, setup: &Setup) -> &Kernel {
        match self {
            Self::V6_1 => &setup.allocator,
            Self::V6_12 => &setup.stable,
            Self::Newest => &setup.newest,
        }
    }

    /// Whether its accelerator driver survives that a device without an event log is disabled: 6.12.117 follows a
    /// pointer that is none.
    fn disables(self) -> bool {
        self != Self::V6_12
    }

    /// The others refuse every bind on x86.
    fn binds_processes(self) -> bool {
        self == Self::Newest
    }
}

/// Which tables the kernel's driver uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tables {
    Scalable,
    Legacy,
}

/// What the kernel's own DMA goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Domain {
    /// Tables, or none: the kernel's default.
    Translated,
    /// Tables, with an invalidation after each unmapping.
    Strict,
    /// Tables, with invalidations put off.
    Lazy,
    /// Nothing.
    Identity,
}

impl Domain {
    /// What sysfs says of the function's group.
    fn types(self) -> &'static [&'static str] {
        match self {
            Self::Translated => &["DMA", "DMA-FQ"],
            Self::Strict => &["DMA"],
            Self::Lazy => &["DMA-FQ"],
            Self::Identity => &["identity"],
        }
    }
}

/// The page tables of the guest's processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Levels {
    Five,
    /// The processor has no more.
    Four,
    /// The kernel uses no more.
    FourOfFive,
}

/// How a kernel is started.
#[derive(Debug)]
struct Setting {
    name: &'static str,
    about: &'static str,
    arguments: &'static [&'static str],
    tables: Tables,
    domain: Domain,
    levels: Levels,
    /// How the machine's own host is started.
    host: &'static [&'static str],
}

const PLAIN: Setting = Setting {
    name: "sm-on",
    about: "scalable mode",
    arguments: &[],
    tables: Tables::Scalable,
    domain: Domain::Translated,
    levels: Levels::Five,
    host: &[],
};

const NO_CACHING_MODE: &[&str] = &["--no-caching-mode"];

const SETTINGS: &[Setting] = &[
    PLAIN,
    Setting {
        name: "sm-off",
        about: "legacy mode",
        arguments: &["intel_iommu=sm_off"],
        tables: Tables::Legacy,
        ..PLAIN
    },
    Setting {
        name: "pt",
        about: "scalable mode, the kernel's own DMA passed through",
        arguments: &["iommu=pt"],
        domain: Domain::Identity,
        ..PLAIN
    },
    Setting {
        name: "pt-sm-off",
        about: "legacy mode, the kernel's own DMA passed through",
        arguments: &["intel_iommu=sm_off", "iommu=pt"],
        tables: Tables::Legacy,
        domain: Domain::Identity,
        ..PLAIN
    },
    Setting {
        name: "strict",
        about: "scalable mode, an invalidation after each unmapping",
        arguments: &["iommu.strict=1"],
        domain: Domain::Strict,
        ..PLAIN
    },
    Setting {
        name: "lazy",
        about: "scalable mode, invalidations put off",
        arguments: &["iommu.strict=0"],
        domain: Domain::Lazy,
        ..PLAIN
    },
    Setting {
        name: "lazy-sm-off",
        about: "legacy mode, asked to put invalidations off, which it does not under caching mode",
        arguments: &["intel_iommu=sm_off", "iommu.strict=0"],
        tables: Tables::Legacy,
        domain: Domain::Strict,
        ..PLAIN
    },
    Setting {
        name: "cm-off",
        about: "scalable mode, a unit that is not told of new entries",
        host: NO_CACHING_MODE,
        ..PLAIN
    },
    Setting {
        name: "cm-off-lazy-sm-off",
        about: "legacy mode, invalidations put off, by a unit that is not told of new entries",
        arguments: &["intel_iommu=sm_off", "iommu.strict=0"],
        tables: Tables::Legacy,
        domain: Domain::Lazy,
        host: NO_CACHING_MODE,
        ..PLAIN
    },
    Setting {
        name: "la57-off",
        about: "scalable mode, a processor with four levels",
        levels: Levels::Four,
        ..PLAIN
    },
    Setting {
        name: "no5lvl",
        about: "scalable mode, a processor with five levels of which four are used",
        arguments: &["no5lvl"],
        levels: Levels::FourOfFive,
        ..PLAIN
    },
];

/// One kernel with one setting.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell {
    generation: Generation,
    setting: &'static Setting,
}

pub(super) fn scenarios() -> impl Iterator<Item = Scenario> {
    let cells = Generation::ALL.into_iter().flat_map(|generation| {
        SETTINGS.iter().map(move |setting| Cell {
            generation,
            setting,
        })
    });
    cells.map(|cell| Scenario {
        name: format!("matrix-{}-{}", cell.generation.name(), cell.setting.name),
        about: format!("Linux {}: {}", cell.generation.name(), cell.setting.about),
        run: Run::Cell(cell),
    })
}

impl Cell {
    pub(super) fn run(self, bench: &Bench<'_>, name: &str) -> anyhow::Result<Vec<String>> {
        let Self {
            generation,
            setting,
        } = self;
        let kernel = generation.kernel(bench.setup);
        let image = bench.image(kernel)?;
        let shares = generation.binds_processes() && setting.tables == Tables::Scalable;
        let mut arguments = setting.arguments.to_vec();
        if shares {
            arguments.push("palisade.sva=yes");
        }
        if !generation.disables() {
            arguments.push("palisade.disable=no");
        }
        let mut boot = bench.boot(kernel, &image, "matrix", &arguments);
        boot.host = setting.host;
        if setting.levels == Levels::Four {
            boot.cpu.push_str(",la57=off");
        }
        let console = Console::new(bench.layout, name)?;
        let guest = Guest::start(boot.alone(bench.palisade()?, &console), console)?;
        let seen = guest.finish(PATIENCE)?;
        let mut told = expect_checks(&kernel.release, &seen, CHECKS)?;
        if shares {
            told.extend(expect_checks(&kernel.release, &seen, &[SHARED_CHECK])?);
        }
        told.push(self.check_setting(&seen)?);
        Ok(told)
    }

    /// The kernel did as it was told: otherwise the cell shows what another shows.
    fn check_setting(self, seen: &Seen) -> anyhow::Result<String> {
        let Setting {
            tables,
            domain,
            levels,
            ..
        } = self.setting;
        let note = |key| seen.note(key).unwrap_or("unknown");
        let group = note("group-type");
        ensure!(
            domain.types().contains(&group),
            "the function's group is of type {group}, not {:?}",
            domain.types()
        );
        let five = match levels {
            Levels::Five => "yes",
            Levels::Four | Levels::FourOfFive => "no",
        };
        ensure!(
            note("five-levels") == five,
            "five levels: {}, not {five}",
            note("five-levels")
        );
        // The kernel says which tables a fault was found in: the unit's codes differ.
        let told =
            matches!(seen.check("vfio-unmapped"), Some(Ok(fault)) if fault.contains(SCALABLE));
        ensure!(
            told == (*tables == Tables::Scalable),
            "a fault is not one of {tables:?} mode"
        );
        Ok(format!("group {group}, five levels {five}"))
    }
}
