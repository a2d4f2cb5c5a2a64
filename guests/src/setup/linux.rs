//! Stock kernels.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::elf_modules::Index;
use super::part::{self, Part, Stamp};
use super::qemu::Qemu;
use super::{Downloads, Kernel, KernelModule, Load};
use crate::Layout;
use crate::apt::{Closure, Package, Tree, unpack};

pub(super) const NEWEST_PART: Part = Part {
    name: "linux-newest",
    recipe: 2,
};

pub(super) const STABLE_PART: Part = Part {
    name: "linux-6.12",
    recipe: 1,
};

pub(super) const ALLOCATOR_PART: Part = Part {
    name: "linux-6.1",
    recipe: 2,
};

/// The accelerator's driver; what it needs comes with it.
const DRIVER: &[&str] = &["idxd"];

/// What gives a function to a program; what they need comes with them.
const VFIO: &[&str] = &["vfio_pci", "vfio_iommu_type1"];

/// The first kernel whose packages are named so, and which binds address spaces on x86.
const OLDEST_MAJOR: u64 = 7;

/// What the allocator module is built against.
#[derive(Debug)]
pub(super) struct Headers {
    /// The folder that kernel builds start in.
    pub(super) folder: PathBuf,
    /// A library that the kernel's build tools need and the machine may lack.
    pub(super) libraries: PathBuf,
}

/// The newest kernel of the distribution.
pub(super) fn prepare_newest(
    layout: &Layout,
    downloads: &Downloads,
    qemu: &Qemu,
) -> anyhow::Result<Kernel> {
    let (folder, stamp) = part::prepare(layout, NEWEST_PART, |staging| {
        let tree = downloads.newest()?;
        let release = newest_release(tree)?;
        let packages = tree.download(
            &[
                &format!("linux-binary-{release}"),
                &format!("linux-modules-{release}"),
            ],
            Closure::Named,
        )?;
        println!("unpacking Linux {release}");
        let mut stamp = Stamp::new(packages);
        stamp.release = release;
        let packages: Vec<&Package> = stamp.packages.iter().collect();
        let kept = keep_kernel(staging, &packages, &stamp.release, qemu)?;
        Ok(kept.note_in(stamp))
    })?;
    Ok(kernel(&folder, stamp))
}

/// The kernel of the distribution's stable release, Linux 6.12.
pub(super) fn prepare_stable(
    layout: &Layout,
    downloads: &Downloads,
    qemu: &Qemu,
) -> anyhow::Result<Kernel> {
    let (folder, stamp) = part::prepare(layout, STABLE_PART, |staging| {
        let tree = downloads.newest()?;
        let names = tree.names("linux-image-6.12.")?;
        let release = newest(&names, "linux-image-", |_| true)
            .context("the distribution has no Linux 6.12")?;
        let packages = tree.download(&[&format!("linux-image-{release}")], Closure::Named)?;
        println!("unpacking Linux {release}");
        let mut stamp = Stamp::new(packages);
        stamp.release = release;
        let packages: Vec<&Package> = stamp.packages.iter().collect();
        let kept = keep_kernel(staging, &packages, &stamp.release, qemu)?;
        Ok(kept.note_in(stamp))
    })?;
    Ok(kernel(&folder, stamp))
}

/// The names of the modules that were kept, each after those that it needs.
struct Kept {
    driver: Vec<String>,
    vfio: Vec<String>,
}

impl Kept {
    fn note_in(self, mut stamp: Stamp) -> Stamp {
        stamp.modules = self.driver;
        stamp.vfio = self.vfio;
        stamp
    }
}

/// Of a kernel's packages, the image and the few modules that guests load go to `folder`. The others are
/// hundreds of megabytes.
fn keep_kernel(
    folder: &Path,
    packages: &[&Package],
    release: &str,
    qemu: &Qemu,
) -> anyhow::Result<Kept> {
    let unpacked = folder.join("unpacked");
    for package in packages {
        unpack(package, &unpacked)?;
    }
    // Where they are has changed with the kernels.
    let modules = ["usr/lib/modules", "lib/modules"].map(|at| unpacked.join(at).join(release));
    let [image, modules] = [
        [
            unpacked.join(format!("boot/vmlinuz-{release}")),
            modules[0].join("vmlinuz"),
        ],
        modules,
    ]
    .map(|places| places.into_iter().find(|place| place.exists()));
    let image = image.context("the kernel's package has no image where it was expected")?;
    let modules =
        modules.context("the kernel's package has no modules where they were expected")?;
    fs::rename(image, folder.join("vmlinuz"))?;
    fs::create_dir(folder.join("modules"))?;
    let index = Index::of(&modules)?;
    let keep = |wanted: &[&str]| -> anyhow::Result<Vec<String>> {
        let found = index.closure(wanted, |file| {
            match file.extension().is_some_and(|ending| ending == "xz") {
                true => qemu.decompress_xz(file),
                false => Ok(fs::read(file)?),
            }
        })?;
        for (name, bytes) in &found {
            fs::write(module_file(folder, name), bytes)?;
        }
        Ok(found.into_iter().map(|(name, _)| name).collect())
    };
    let kept = Kept {
        driver: keep(DRIVER)?,
        vfio: keep(VFIO)?,
    };
    fs::remove_dir_all(&unpacked)?;
    Ok(kept)
}

fn kernel(folder: &Path, stamp: Stamp) -> Kernel {
    let modules = |names: Vec<String>, load| {
        names.into_iter().map(move |name| KernelModule {
            file: module_file(folder, &name),
            name,
            load,
        })
    };
    let mut all: Vec<KernelModule> = modules(stamp.modules, Load::AtBoot).collect();
    all.extend(modules(stamp.vfio, Load::WithVfio));
    Kernel {
        release: stamp.release,
        image: folder.join("vmlinuz"),
        modules: all,
    }
}

fn module_file(folder: &Path, name: &str) -> PathBuf {
    folder.join("modules").join(format!("{name}.ko"))
}

fn newest_release(tree: &Tree) -> anyhow::Result<String> {
    let names = tree.names("linux-binary-")?;
    newest(&names, "linux-binary-", |version| {
        version.first() >= Some(&OLDEST_MAJOR)
    })
    .with_context(|| {
        format!("the distribution has no Linux {OLDEST_MAJOR}: there is no package linux-binary-…")
    })
}

/// The newest of the packages `PREFIX VERSION -amd64`, as `VERSION-amd64`. Flavours, which have a word in between,
/// are left out.
fn newest(names: &[String], prefix: &str, accept: impl Fn(&[u64]) -> bool) -> Option<String> {
    let candidates = names.iter().filter_map(|name| {
        let release = name.strip_prefix(prefix)?;
        let version = release.strip_suffix("-amd64")?;
        let plain = version.split('+').all(|part| {
            let part = part.strip_prefix("deb").unwrap_or(part);
            part.bytes()
                .all(|b| b.is_ascii_digit() || b"-.".contains(&b))
        });
        let numbers: Vec<u64> = version
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|number| number.parse().ok())
            .collect();
        (plain && accept(&numbers)).then(|| (numbers, release.to_owned()))
    });
    candidates.max().map(|(_, release)| release)
}

/// The newest Linux 6.1, and what modules for it are built against.
pub(super) fn prepare_allocator(
    layout: &Layout,
    downloads: &Downloads,
    qemu: &Qemu,
) -> anyhow::Result<(Kernel, Headers)> {
    let (folder, stamp) = part::prepare(layout, ALLOCATOR_PART, |staging| {
        let tree = downloads.allocator()?;
        let names = tree.names("linux-headers-6.1.")?;
        let release = newest(&names, "linux-headers-", |_| true)
            .context("the distribution has no Linux 6.1")?;
        let abi = release.trim_end_matches("-amd64");
        let image = format!("linux-image-{release}");
        let packages = tree.download(
            &[
                &image,
                &format!("linux-headers-{release}"),
                &format!("linux-headers-{abi}-common"),
                "linux-kbuild-6.1",
                "libelf1",
            ],
            Closure::Named,
        )?;
        println!("unpacking Linux {release}");
        let (images, others): (Vec<&Package>, Vec<&Package>) =
            packages.iter().partition(|package| package.name == image);
        for package in others {
            unpack(package, staging)?;
        }
        let kept = keep_kernel(staging, &images, &release, qemu)?;
        let headers = headers_folder(staging, &release);
        // The package's Makefile refers to where it would be installed.
        fs::write(
            headers.join("Makefile"),
            format!("include ../linux-headers-{abi}-common/Makefile\n"),
        )
        .context("the headers' package is not laid out as expected")?;
        let mut stamp = Stamp::new(packages);
        stamp.release = release;
        Ok(kept.note_in(stamp))
    })?;
    let headers = Headers {
        folder: headers_folder(&folder, &stamp.release),
        libraries: folder.join("usr/lib/x86_64-linux-gnu"),
    };
    Ok((kernel(&folder, stamp), headers))
}

fn headers_folder(folder: &Path, release: &str) -> PathBuf {
    folder.join(format!("usr/src/linux-headers-{release}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_newest_kernel_is_the_greatest_by_numbers_and_no_flavour() {
        let names = names(&[
            "linux-binary-7.2.12+deb13-amd64",
            "linux-binary-7.10.1+deb13-amd64",
            "linux-binary-7.9.30+deb13-amd64",
            "linux-binary-7.11.0+deb13-cloud-amd64",
            "linux-binary-7.11.0+deb13-rt-amd64",
            "linux-binary-6.99.0+deb13-amd64",
        ]);
        let seven = |version: &[u64]| version.first() >= Some(&7);
        assert_eq!(
            newest(&names, "linux-binary-", seven).as_deref(),
            Some("7.10.1+deb13-amd64")
        );
        assert_eq!(newest(&names, "linux-binary-", |v| v[0] > 8), None);
    }

    #[test]
    fn kernels_of_older_naming_are_found_too() {
        let names = names(&[
            "linux-headers-6.1.0-9-amd64",
            "linux-headers-6.1.0-56-amd64",
            "linux-headers-6.1.0-57-rt-amd64",
            "linux-headers-6.1.0-57-common",
        ]);
        assert_eq!(
            newest(&names, "linux-headers-", |_| true).as_deref(),
            Some("6.1.0-56-amd64")
        );
    }
}
