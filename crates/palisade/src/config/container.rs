//! The socket of a VMM that has an IOMMU of its own.

use toml::Spanned;

use super::{
    ContainerConfig, SocketPermissions, raw,
    validate::{Checked, Checker},
};

/// Nothing but reading and writing means anything for a socket.
const MODE_MAX: u32 = 0o666;
/// The last user or group that is one: -1 means "leave it".
const ID_MAX: u32 = u32::MAX - 1;

impl Checker<'_> {
    pub(super) fn container(&mut self, raw: &Spanned<raw::Container>) -> Checked<ContainerConfig> {
        let raw = raw.get_ref();
        let uids = raw.uids.as_ref().map(|uids| {
            let uid = |uid: &Spanned<i64>| self.number("uids", uid, 0, ID_MAX);
            uids.iter().map(uid).collect::<Checked<Vec<_>>>()
        });
        let id = |what, id: &Option<Spanned<i64>>| {
            let id = id.as_ref().map(|id| self.number(what, id, 0, ID_MAX));
            id.transpose()
        };
        let mode = raw.mode.as_ref().map(|text| self.mode(text)).transpose()?;
        let permissions = SocketPermissions {
            mode: mode.unwrap_or(SocketPermissions::PRIVATE.mode),
            owner: id("owner", &raw.owner)?,
            group: id("group", &raw.group)?,
        };
        Ok(ContainerConfig {
            uids: uids.transpose()?,
            permissions,
            socket: self.socket(&raw.socket)?,
        })
    }

    fn mode(&self, text: &Spanned<String>) -> Checked<u32> {
        u32::from_str_radix(text.get_ref(), 8)
            .ok()
            .filter(|mode| mode & !MODE_MAX == 0)
            .ok_or_else(|| {
                let told = format!(
                    "mode = {:?}: read and write bits in octal are allowed, as in \"0660\"",
                    text.get_ref()
                );
                self.wrong(text, told)
            })
    }
}
