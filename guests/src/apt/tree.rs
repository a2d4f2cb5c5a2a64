//! A package manager's state of our own.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

use super::Mirrors;
use crate::command;

/// A release of the distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Release {
    /// Its code name.
    pub(crate) codename: &'static str,
    /// Whether its backports are wanted too, and preferred.
    pub(crate) backports: Backports,
}

/// Newer packages built for an older release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backports {
    /// Taken where there are any.
    Preferred,
    /// Left alone.
    None,
}

impl Release {
    /// Has a new enough QEMU, and new kernels, in its backports.
    pub(crate) const TRIXIE_BACKPORTS: Self = Self {
        codename: "trixie",
        backports: Backports::Preferred,
    };
    /// Has Linux 6.1.
    pub(crate) const BOOKWORM: Self = Self {
        codename: "bookworm",
        backports: Backports::None,
    };
}

/// Which packages are downloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closure {
    /// Those named.
    Named,
    /// Those named and all that they depend on, down to the C library.
    Whole,
}

/// A downloaded package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    #[serde(skip)]
    pub(crate) file: PathBuf,
}

/// One release's packages, as a state of our own under one folder.
#[derive(Debug)]
pub(crate) struct Tree {
    folder: PathBuf,
    release: Release,
}

/// The distribution's own keys, which every Debian machine has.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

impl Tree {
    /// Makes the state, and fetches and checks the lists of packages.
    pub(crate) fn open(folder: &Path, release: Release, mirrors: &Mirrors) -> anyhow::Result<Self> {
        let tree = Self {
            folder: folder.to_owned(),
            release,
        };
        for part in [
            "state/lists/partial",
            "cache/archives/partial",
            "nothing-yet/partial",
            "log",
            "none",
        ] {
            let part = folder.join(part);
            fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
        }
        fs::write(folder.join("status"), "")?;
        fs::write(folder.join("sources.list"), tree.sources(mirrors))?;
        fs::write(folder.join("apt.conf"), tree.configuration())?;
        println!("downloading the package lists of {}", release.codename);
        command::run(tree.apt_get().arg("update")).with_context(|| {
            format!(
                "the package lists of {} cannot be downloaded; guests need them, and a network",
                release.codename
            )
        })?;
        Ok(tree)
    }

    fn sources(&self, mirrors: &Mirrors) -> String {
        // Without that file the keys that the package manager trusts anyway are used; never none.
        let signed = match Path::new(KEYRING).exists() {
            true => format!(" signed-by={KEYRING}"),
            false => String::new(),
        };
        let mut sources = String::new();
        let mut add = |base: &str, suite: String| {
            let options = format!("arch=amd64 target=Packages lang=none{signed}");
            // Writing to a string cannot fail.
            let _ = writeln!(sources, "deb [{options}] {base} {suite} main");
        };
        let codename = self.release.codename;
        add(&mirrors.archive, codename.to_owned());
        if self.release.backports == Backports::Preferred {
            add(&mirrors.archive, format!("{codename}-backports"));
        }
        if let Some(security) = &mirrors.security {
            add(security, format!("{codename}-security"));
        }
        sources
    }

    fn configuration(&self) -> String {
        let folder = self.folder.display();
        let target = match self.release.backports {
            Backports::Preferred => {
                format!(
                    "APT::Default-Release \"{}-backports\";",
                    self.release.codename
                )
            }
            Backports::None => String::new(),
        };
        // The hooks of the machine's configuration act on the machine's state, which is not ours.
        format!(
            "#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear APT::Architectures;
APT::Architecture \"amd64\";
APT::Architectures {{ \"amd64\"; }};
APT::Sandbox::User \"\";
APT::Install-Recommends \"false\";
APT::Update::Error-Mode \"any\";
Acquire::Retries \"3\";
Acquire::AllowInsecureRepositories \"false\";
Dir::Etc::SourceList \"{folder}/sources.list\";
Dir::Etc::SourceParts \"{folder}/none\";
Dir::Etc::Preferences \"{folder}/none/none\";
Dir::Etc::PreferencesParts \"{folder}/none\";
Dir::State \"{folder}/state\";
Dir::State::status \"{folder}/status\";
Dir::Cache \"{folder}/cache\";
Dir::Log \"{folder}/log\";
{target}
"
        )
    }

    fn apt_get(&self) -> Command {
        self.tool("apt-get")
    }

    fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command
            .arg("-c")
            .arg(self.folder.join("apt.conf"))
            .arg("-q");
        command
    }

    /// The names of all packages that start with `prefix`.
    pub(crate) fn names(&self, prefix: &str) -> anyhow::Result<Vec<String>> {
        let names = command::run(self.tool("apt-cache").args(["pkgnames", prefix]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Downloads packages, says which, and returns their files.
    pub(crate) fn download(
        &self,
        names: &[&str],
        closure: Closure,
    ) -> anyhow::Result<Vec<Package>> {
        let archives = self.folder.join("cache/archives");
        let get = || {
            let mut command = self.apt_get();
            match closure {
                Closure::Named => command.arg("download"),
                Closure::Whole => command.args(["install", "--yes", "--download-only"]),
            };
            command.args(names).current_dir(&archives);
            command
        };
        // Without what was downloaded before, which is not listed otherwise.
        let nothing_yet = format!(
            "Dir::Cache::Archives={}",
            self.folder.join("nothing-yet").display()
        );
        let listing = command::run(get().arg("--print-uris").args(["-o", &nothing_yet]))
            .with_context(|| format!("cannot find the packages {}", names.join(", ")))?;
        let wanted = parse_listing(&listing, &archives)?;
        ensure!(
            !wanted.is_empty(),
            "the package manager would download nothing for {}",
            names.join(", ")
        );
        let len: u64 = wanted.iter().map(|(_, len_bytes)| len_bytes).sum();
        println!(
            "downloading {} packages, {} MiB:",
            wanted.len(),
            len.div_ceil(1 << 20)
        );
        for name in names {
            let version = wanted
                .iter()
                .find(|(package, _)| package.name == *name)
                .map_or("", |(package, _)| &package.version);
            println!("    {name} {version}");
        }
        if closure == Closure::Whole {
            println!("    and what they depend on");
        }
        command::run(&mut get())
            .with_context(|| format!("cannot download the packages {}", names.join(", ")))?;
        Ok(wanted.into_iter().map(|(package, _)| package).collect())
    }
}

/// From the lines `'ADDRESS' FILE LENGTH …`, packages and their lengths in bytes.
fn parse_listing(listing: &str, archives: &Path) -> anyhow::Result<Vec<(Package, u64)>> {
    let mut packages = Vec::new();
    for line in listing.lines().filter(|line| line.starts_with('\'')) {
        let mut words = line.split_whitespace().skip(1);
        let (Some(file), Some(len)) = (words.next(), words.next()) else {
            bail!("a line of the package manager is not understood: {line}");
        };
        let mut parts = file.split('_');
        let (Some(name), Some(version)) = (parts.next(), parts.next()) else {
            bail!("a file name of the package manager is not understood: {file}");
        };
        let package = Package {
            name: name.to_owned(),
            version: version.replace("%3a", ":"),
            file: archives.join(file),
        };
        packages.push((package, len.parse().unwrap_or(0)));
    }
    Ok(packages)
}

/// Unpacks `package` under `folder`.
pub(crate) fn unpack(package: &Package, folder: &Path) -> anyhow::Result<()> {
    command::run(
        Command::new("dpkg-deb")
            .arg("-x")
            .arg(&package.file)
            .arg(folder),
    )
    .with_context(|| format!("cannot unpack {}", package.file.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirrors() -> Mirrors {
        Mirrors {
            archive: "http://a.example/debian".into(),
            security: Some("http://s.example/security".into()),
        }
    }

    fn tree(release: Release) -> Tree {
        Tree {
            folder: "/tree".into(),
            release,
        }
    }

    #[test]
    fn sources_are_the_release_its_backports_and_its_security_updates() {
        let suites = |release| {
            let sources = tree(release).sources(&mirrors());
            let suites = sources.lines().map(|line| {
                let (_, suite) = line.split_once("] ").unwrap();
                suite.to_owned()
            });
            suites.collect::<Vec<_>>()
        };
        assert_eq!(
            suites(Release::TRIXIE_BACKPORTS),
            [
                "http://a.example/debian trixie main",
                "http://a.example/debian trixie-backports main",
                "http://s.example/security trixie-security main",
            ]
        );
        assert_eq!(
            suites(Release::BOOKWORM),
            [
                "http://a.example/debian bookworm main",
                "http://s.example/security bookworm-security main",
            ]
        );
    }

    #[test]
    fn what_would_be_downloaded_is_read_from_the_package_manager() {
        let listing = "\
Reading package lists...
'http://a.example/pool/q/qemu.deb' qemu-system-x86_1%3a11.1.3+ds-1_amd64.deb 10377056 SHA256:00
'http://a.example/pool/b/busybox.deb' busybox-static_1.37.0-6_amd64.deb 900 SHA256:00
";
        let packages = parse_listing(listing, Path::new("/archives")).unwrap();
        assert_eq!(packages.len(), 2);
        assert_eq!(packages[0].0.name, "qemu-system-x86");
        assert_eq!(packages[0].0.version, "1:11.1.3+ds-1");
        assert_eq!(packages[0].1, 10_377_056);
        assert_eq!(
            packages[1].0.file,
            Path::new("/archives/busybox-static_1.37.0-6_amd64.deb")
        );
        assert!(parse_listing("'broken'", Path::new("/")).is_err());
    }
}
