//! Stock kernels.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use super::elf_modules::Index;
use super::part::{self, Part, Stamp};
use super::qemu::Qemu;
use super::{Downloads, Kernel, KernelModule, Load};
use crate::Layout;
use crate::apt::{Closure, Tree, unpack};

pub(super) const NEWEST_PART: Part = Part {
    name: "linux-newest",
    recipe: 1,
};

pub(super) const ALLOCATOR_PART: Part = Part {
    name: "linux-6.1",
    recipe: 1,
};

/// The accelerator's driver; what it needs comes with it.
const DRIVER: &str = "idxd";

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
        let unpacked = staging.join("unpacked");
        for package in &packages {
            unpack(package, &unpacked)?;
        }
        let modules = unpacked.join("usr/lib/modules").join(&release);
        fs::rename(modules.join("vmlinuz"), staging.join("vmlinuz"))
            .context("the kernel's package has no image where it was expected")?;
        let found = Index::of(&modules)?.closure(DRIVER, |file| qemu.decompress_xz(file))?;
        fs::create_dir(staging.join("modules"))?;
        for (name, bytes) in &found {
            fs::write(module_file(staging, name), bytes)?;
        }
        fs::remove_dir_all(&unpacked)?;
        let mut stamp = Stamp::new(packages);
        stamp.release = release;
        stamp.modules = found.into_iter().map(|(name, _)| name).collect();
        Ok(stamp)
    })?;
    let modules = stamp.modules.into_iter().map(|name| KernelModule {
        file: module_file(&folder, &name),
        name,
        load: Load::AtBoot,
    });
    Ok(Kernel {
        release: stamp.release,
        image: folder.join("vmlinuz"),
        modules: modules.collect(),
    })
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
        for package in &packages {
            // Of the image's package only the kernel itself: its modules are 400 MB that nobody loads.
            match package.name == image {
                true => unpack_image(&package.file, staging, &release)?,
                false => unpack(package, staging)?,
            }
        }
        let headers = headers_folder(staging, &release);
        // The package's Makefile refers to where it would be installed.
        fs::write(
            headers.join("Makefile"),
            format!("include ../linux-headers-{abi}-common/Makefile\n"),
        )
        .context("the headers' package is not laid out as expected")?;
        let mut stamp = Stamp::new(packages);
        stamp.release = release;
        Ok(stamp)
    })?;
    let headers = Headers {
        folder: headers_folder(&folder, &stamp.release),
        libraries: folder.join("usr/lib/x86_64-linux-gnu"),
    };
    let kernel = Kernel {
        release: stamp.release,
        image: folder.join("vmlinuz"),
        modules: Vec::new(),
    };
    Ok((kernel, headers))
}

fn headers_folder(folder: &Path, release: &str) -> PathBuf {
    folder.join(format!("usr/src/linux-headers-{release}"))
}

fn unpack_image(package: &Path, folder: &Path, release: &str) -> anyhow::Result<()> {
    let mut archive = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start dpkg-deb")?;
    let contents = archive.stdout.take().map_or_else(Stdio::null, Stdio::from);
    let image = Command::new("tar")
        .args(["--extract", "--to-stdout", "--file", "-"])
        .arg(format!("./boot/vmlinuz-{release}"))
        .stdin(contents)
        .output()
        .context("cannot start tar");
    let unpacked = archive.wait()?;
    let image = image?;
    ensure!(
        unpacked.success() && image.status.success() && !image.stdout.is_empty(),
        "no kernel can be unpacked from {}",
        package.display()
    );
    fs::write(folder.join("vmlinuz"), image.stdout)?;
    Ok(())
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
