//! Functions that come and go at run time.

use std::io::{self, ErrorKind};

use rustix::io::Errno;

use super::{
    changing::{Answer, Changing},
    functions::{Functions, Wanted, uuid_of},
};
use crate::{
    config::HostConfig,
    control::{Change, Origin, Refusal},
    state::{KeptMdev, MDEVS_MAX},
};

impl Functions {
    /// Makes a function, and says of what and where.
    pub(super) fn create(
        &self,
        changing: &mut Changing,
        wanted: &Wanted<'_>,
    ) -> Result<Change, Refusal> {
        let (tenant, config) = self.resolve(wanted)?;
        let uuid = config.uuid;
        let made = Change::CreateMdev {
            parent: config.parent.clone(),
            kind: config.kind,
            tenant: tenant.name().to_owned(),
            uuid: Some(uuid.to_string()),
            socket: Some(config.socket.display().to_string()),
            guest_bdf: Some(config.guest_bdf.to_string()),
        };
        let mut next = changing.set.clone();
        let kept = KeptMdev {
            parent: config.parent.clone(),
            kind: config.kind,
            tenant: tenant.name().to_owned(),
            socket: config.socket.display().to_string(),
            guest_bdf: config.guest_bdf.to_string(),
        };
        next.mdevs.insert(uuid.to_string(), kept);
        if next.mdevs.len() > MDEVS_MAX {
            let what = format!("there are {MDEVS_MAX} functions made at run time: remove one");
            return Err(Refusal::new(Errno::NOSPC, what));
        }
        let (parent, socket) = (config.parent.clone(), config.socket.clone());
        // Nobody has it before it is kept: until its socket is open it cannot be reached.
        self.add(&tenant, config, Origin::RunTime)
            .map_err(|e| self.no_room(&parent, &e))?;
        let opened = changing.keep_and_apply(next, || {
            self.open(uuid).map_err(|e| {
                let what = format!("{}: cannot be served: {e}", socket.display());
                Refusal::new(errno_of(&e), what)
            })
        });
        if let Err(refusal) = opened {
            self.take(uuid);
            return Err(refusal);
        }
        Ok(made)
    }

    /// Removes a function that was made at run time and that nobody uses (R72).
    pub(super) fn remove(&self, changing: &mut Changing, uuid: &str) -> Answer {
        let uuid = uuid_of(uuid)?;
        let mut next = changing.set.clone();
        let was_made = next.mdevs.remove(&uuid.to_string()).is_some();
        let Some(function) = self.get(uuid) else {
            // One that could not be made again: it can be forgotten.
            if was_made {
                return changing.keep_and_apply(next, || Ok(()));
            }
            let what = format!("there is no function {uuid}; `palisade ctl mdev list` has all");
            return Err(Refusal::new(Errno::NOENT, what));
        };
        if function.origin != Origin::RunTime {
            let what = format!(
                "function {uuid} of {} stands in the configuration: take it out there, and restart",
                function.holder()
            );
            return Err(Refusal::new(Errno::PERM, what));
        }
        changing.apply_and_keep(
            next,
            || {
                function.shut().map_err(|_| {
                    let holder = function.holder();
                    let what = format!("function {uuid} is in use by {holder}: end that first");
                    Refusal::new(Errno::BUSY, what)
                })
            },
            |()| {
                function.reopen();
                Ok(())
            },
        )?;
        drop(function);
        self.take(uuid);
        Ok(())
    }

    /// Makes the functions again that an earlier daemon was told to make. What cannot be had beside the
    /// configuration is told of and kept, since the configuration may change back.
    pub(super) fn restore(&self, config: &HostConfig, changing: &mut Changing) {
        let configured = |uuid: &String| {
            let functions = config.tenants.iter().flat_map(|t| &t.functions);
            functions.map(|f| f.uuid.to_string()).any(|u| u == *uuid)
        };
        changing.set.mdevs.retain(|uuid, _| {
            let is_configured = configured(uuid);
            if is_configured {
                tracing::info!(uuid, "made at run time, and in the configuration now");
            }
            !is_configured
        });
        for (uuid, kept) in &changing.set.mdevs {
            if let Err(refusal) = self.restore_one(uuid, kept) {
                tracing::warn!(
                    uuid,
                    "made at run time, and not made again: {}; `palisade ctl mdev remove {uuid}` forgets it",
                    refusal.error
                );
            }
        }
    }

    /// Opens the sockets of those that [`Functions::restore`] made.
    pub(super) fn open_restored(&self) {
        for line in self.lines().mdevs {
            let Ok(uuid) = uuid_of(&line.uuid) else {
                continue;
            };
            if line.origin != Origin::RunTime {
                continue;
            }
            if let Err(e) = self.open(uuid) {
                tracing::warn!(
                    %uuid,
                    "made at run time, and not made again: {}: {e}; `palisade ctl mdev remove {uuid}` forgets it",
                    line.socket
                );
                self.take(uuid);
            }
        }
    }

    fn restore_one(&self, uuid: &str, kept: &KeptMdev) -> Answer {
        let wanted = Wanted {
            parent: &kept.parent,
            kind: kept.kind,
            tenant: &kept.tenant,
            uuid: Some(uuid),
            socket: Some(&kept.socket),
            guest_bdf: Some(&kept.guest_bdf),
        };
        let (tenant, config) = self.resolve(&wanted)?;
        self.add(&tenant, config, Origin::RunTime)
            .map_err(|e| self.no_room(&kept.parent, &e))
    }
}

/// The number of an error, also of one that was found without the system.
fn errno_of(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(match error.kind() {
        ErrorKind::AddrInUse => Errno::ADDRINUSE,
        ErrorKind::AlreadyExists => Errno::EXIST,
        ErrorKind::NotFound => Errno::NOENT,
        ErrorKind::PermissionDenied => Errno::ACCESS,
        _ => Errno::IO,
    })
}
