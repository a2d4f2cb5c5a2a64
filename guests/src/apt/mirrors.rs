//! Where this machine gets its packages.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::Context;

use crate::command;

/// The base addresses of the distribution's archives, as this machine is configured to reach them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mirrors {
    /// The main archive, which has all releases and backports.
    pub(crate) archive: String,
    /// The archive of security updates, where the machine has one.
    pub(crate) security: Option<String>,
}

impl Mirrors {
    /// Asks the package manager, which understands every form that its sources may have.
    pub(crate) fn of_this_machine() -> anyhow::Result<Self> {
        let listing = command::run(Command::new("apt-get").args([
            "-o",
            "Debug::NoLocking=1",
            "--print-uris",
            "update",
        ]))
        .context("cannot ask the package manager where packages come from")?;
        let system = std::fs::read_to_string("/etc/os-release")
            .context("cannot read /etc/os-release to learn which release this machine has")?;
        let codename = codename(&system)
            .context("/etc/os-release has no VERSION_CODENAME: this is not a Debian release")?;
        Self::parse(&listing, codename).with_context(|| {
            format!(
                "no package source of this machine has the release {codename}: set-up needs a Debian \
                 mirror among them"
            )
        })
    }

    /// From the lines `'BASE/dists/SUITE/InRelease' …`.
    fn parse(listing: &str, codename: &str) -> Option<Self> {
        let bases: BTreeMap<&str, &str> = listing
            .lines()
            .filter_map(|line| {
                let (address, _) = line.strip_prefix('\'')?.split_once('\'')?;
                let (base, index) = address.split_once("/dists/")?;
                let (suite, _file) = index.rsplit_once('/')?;
                Some((suite, base))
            })
            .collect();
        let security = bases.get(format!("{codename}-security").as_str());
        Some(Self {
            archive: (*bases.get(codename)?).to_owned(),
            security: security.map(|&base| base.to_owned()),
        })
    }
}

fn codename(os_release: &str) -> Option<&str> {
    let value = os_release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(value.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "\
'http://mirror.example/debian/dists/bookworm/InRelease' mirror.example_debian_dists_bookworm_InRelease 0 
'http://mirror.example/debian/dists/bookworm-updates/InRelease' mirror.example_x_InRelease 0 
'http://other.example/security/dists/bookworm-security/InRelease' other.example_y_InRelease 0 
";

    #[test]
    fn mirrors_are_those_of_the_machine() {
        assert_eq!(
            Mirrors::parse(LISTING, "bookworm"),
            Some(Mirrors {
                archive: "http://mirror.example/debian".into(),
                security: Some("http://other.example/security".into()),
            })
        );
        assert_eq!(Mirrors::parse(LISTING, "trixie"), None);
    }

    #[test]
    fn the_release_is_read_with_and_without_quotes() {
        assert_eq!(
            codename("ID=debian\nVERSION_CODENAME=bookworm\n"),
            Some("bookworm")
        );
        assert_eq!(codename("VERSION_CODENAME=\"trixie\""), Some("trixie"));
        assert_eq!(codename("ID=arch"), None);
    }
}
