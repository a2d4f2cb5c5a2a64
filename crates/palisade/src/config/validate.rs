//! From the file as written to a host that is consistent in itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use palisade_units::{Bdf, PASID_COUNT};
use palisade_vtd::CachingMode;
use toml::Spanned;
use uuid::Uuid;

use super::{
    ConfigError, FunctionConfig, FunctionKind, GroupConfig, GuestIommu, HostConfig, ParentConfig,
    ParentSharing, TenantConfig, UnitConfig, VirtualCommands,
    limits::{capacity_beside, is_name},
    place::{first_free, is_on_root_bus},
    raw,
};

/// The quota of a tenant that names none (R29).
const DEFAULT_QUOTA: u32 = 1000;
/// Where a guest finds its unit unless told otherwise.
const DEFAULT_UNIT_BDF: Bdf = Bdf::new(0, 0x10, 0);
/// A path of a Unix socket has to fit into `sockaddr_un`.
pub(crate) const SOCKET_PATH_MAX_BYTES: usize = 107;

pub(super) struct Checker<'a> {
    file: &'a Path,
    text: &'a str,
    sockets: BTreeSet<PathBuf>,
    uuids: BTreeSet<Uuid>,
    dedicated: BTreeMap<String, u8>,
    /// Who has a parent to himself.
    exclusive: BTreeMap<String, String>,
    /// Who has slices of a parent.
    sliced: BTreeMap<String, BTreeSet<String>>,
}

/// What the tenants share.
#[derive(Clone, Copy)]
struct Limits<'a> {
    /// How many PASIDs there are for all of them.
    capacity: u32,
    groups: &'a [GroupConfig],
}

pub(super) type Checked<T> = Result<T, ConfigError>;

pub(super) fn host(file: &Path, text: &str, raw: raw::Host) -> Checked<HostConfig> {
    let mut checker = Checker {
        file,
        text,
        sockets: BTreeSet::new(),
        uuids: BTreeSet::new(),
        dedicated: BTreeMap::new(),
        exclusive: BTreeMap::new(),
        sliced: BTreeMap::new(),
    };
    let control = raw.control.map(|path| checker.path(&path));
    let state = match raw.state {
        Some(path) if path.get_ref().is_empty() => {
            return Err(checker.wrong(&path, "state = \"\": the path of a folder is needed"));
        }
        path => path.map(|path| checker.path(path.get_ref())),
    };
    let reserved = checker.reserved(&raw.reserved)?;
    let groups = checker.groups(raw.groups)?;
    let mut parents: Vec<ParentConfig> = Vec::new();
    for parent in raw.parents {
        let parent = checker.parent(&parents, parent)?;
        parents.push(parent);
    }
    let limits = Limits {
        capacity: capacity_beside(&reserved),
        groups: &groups,
    };
    let mut tenants: Vec<TenantConfig> = Vec::new();
    for tenant in raw.tenants {
        let tenant = checker.tenant(&parents, limits, &tenants, tenant)?;
        tenants.push(tenant);
    }
    if parents.is_empty() {
        return Err(ConfigError::at(
            file,
            text,
            0,
            "no [[parent]]: a host needs at least one",
        ));
    }
    if tenants.is_empty() {
        return Err(ConfigError::at(
            file,
            text,
            0,
            "no [[tenant]]: a host needs at least one",
        ));
    }
    Ok(HostConfig {
        control,
        state,
        reserved,
        groups,
        parents,
        tenants,
    })
}

impl Checker<'_> {
    pub(super) fn wrong<T>(&self, at: &Spanned<T>, what: impl Into<String>) -> ConfigError {
        ConfigError::at(self.file, self.text, at.span().start, what)
    }

    fn path(&self, text: &str) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(text)
    }

    pub(super) fn name(&self, name: &Spanned<String>) -> Checked<String> {
        let text = name.get_ref();
        if !is_name(text) {
            return Err(self.wrong(
                name,
                format!("name {text:?}: 1 to 64 letters, digits, '-' and '_' are allowed"),
            ));
        }
        Ok(text.clone())
    }

    pub(super) fn number(
        &self,
        what: &str,
        value: &Spanned<i64>,
        min: u32,
        max: u32,
    ) -> Checked<u32> {
        u32::try_from(*value.get_ref())
            .ok()
            .filter(|v| (min..=max).contains(v))
            .ok_or_else(|| {
                self.wrong(
                    value,
                    format!("{what} = {}: {min} to {max} is allowed", value.get_ref()),
                )
            })
    }

    fn small(&self, what: &str, value: &Spanned<i64>, min: u8, max: u8) -> Checked<u8> {
        let number = self.number(what, value, min.into(), max.into())?;
        u8::try_from(number).map_err(|e| self.wrong(value, e.to_string()))
    }

    fn bdf(&self, value: &Spanned<String>) -> Checked<Bdf> {
        value
            .get_ref()
            .parse()
            .map_err(|e| self.wrong(value, format!("{:?}: {e}", value.get_ref())))
    }

    pub(super) fn socket(&mut self, value: &Spanned<String>) -> Checked<PathBuf> {
        let path = self.path(value.get_ref());
        if path.as_os_str().len() > SOCKET_PATH_MAX_BYTES {
            return Err(self.wrong(
                value,
                format!(
                    "socket {:?}: a path of at most {SOCKET_PATH_MAX_BYTES} bytes is allowed",
                    path
                ),
            ));
        }
        if !self.sockets.insert(path.clone()) {
            return Err(self.wrong(
                value,
                format!(
                    "socket {path:?} is already taken: each unit, container and function needs one of its own"
                ),
            ));
        }
        Ok(path)
    }

    fn parent(&self, before: &[ParentConfig], raw: Spanned<raw::Parent>) -> Checked<ParentConfig> {
        let raw = raw.into_inner();
        let name = self.name(&raw.name)?;
        if before.iter().any(|p| p.name == name) {
            return Err(self.wrong(
                &raw.name,
                format!("a parent named {name:?} is already there"),
            ));
        }
        let bdf = self.bdf(&raw.bdf)?;
        if let Some(other) = before.iter().find(|p| p.bdf == bdf) {
            return Err(self.wrong(
                &raw.bdf,
                format!("{bdf} is already parent {:?}", other.name),
            ));
        }
        let sharing = match &raw.sharing {
            None => ParentSharing::Mediated,
            Some(text) => match text.get_ref().as_str() {
                "mediated" => ParentSharing::Mediated,
                "exclusive" => ParentSharing::Exclusive,
                other => {
                    return Err(self.wrong(
                        text,
                        format!("sharing = {other:?}: \"mediated\" or \"exclusive\" is allowed"),
                    ));
                }
            },
        };
        let queues = raw
            .queues
            .map_or(Ok(8), |v| self.small("queues", &v, 1, 8))?;
        let engines = raw
            .engines
            .map_or(Ok(1), |v| self.small("engines", &v, 1, 4))?;
        Ok(ParentConfig {
            name,
            bdf,
            sharing,
            queues,
            engines,
        })
    }

    fn tenant(
        &mut self,
        parents: &[ParentConfig],
        limits: Limits<'_>,
        before: &[TenantConfig],
        raw: Spanned<raw::Tenant>,
    ) -> Checked<TenantConfig> {
        let raw = raw.into_inner();
        let name = self.name(&raw.name)?;
        if before.iter().any(|t| t.name == name) {
            return Err(self.wrong(
                &raw.name,
                format!("a tenant named {name:?} is already there"),
            ));
        }
        let quota = match &raw.quota {
            None => DEFAULT_QUOTA,
            Some(value) => self.number("quota", value, 1, PASID_COUNT - 1)?,
        };
        let given: u32 = before.iter().map(|t| t.quota).sum();
        let left = limits.capacity.saturating_sub(given);
        if quota > left {
            let what = format!(
                "quota {quota} of tenant {name:?}: only {left} PASIDs are left beside the tenants before it and what \
                 is reserved"
            );
            return Err(match &raw.quota {
                Some(value) => self.wrong(value, what),
                None => self.wrong(&raw.name, what),
            });
        }
        let group = raw.group.as_ref();
        let group = group.map_or(Ok(None), |g| self.group_of(limits.groups, g).map(Some))?;
        let iommu = self.iommu(&raw)?;
        let mut functions: Vec<FunctionConfig> = Vec::new();
        for function in raw.functions {
            let function = self.function(&name, parents, &iommu, &functions, function)?;
            functions.push(function);
        }
        if functions.is_empty() {
            return Err(self.wrong(
                &raw.name,
                format!("tenant {name:?} has no [[tenant.function]]: it needs at least one"),
            ));
        }
        Ok(TenantConfig {
            name,
            quota,
            group,
            iommu,
            functions,
        })
    }

    /// Whose the IOMMU is that the tenant's guest sees.
    fn iommu(&mut self, raw: &raw::Tenant) -> Checked<GuestIommu> {
        match (&raw.unit, &raw.container) {
            (Some(unit), None) => self.unit(unit).map(GuestIommu::Unit),
            (None, Some(container)) => self.container(container).map(GuestIommu::Container),
            (None, None) => Err(self.wrong(
                &raw.name,
                "neither unit nor container: say unit = { socket = … } for a unit of the host's, or container = \
                 { socket = … } for a VMM that has its own",
            )),
            (Some(_), Some(container)) => Err(self.wrong(
                container,
                "unit and container: a guest's functions are behind the one or the other",
            )),
        }
    }

    fn unit(&mut self, raw: &Spanned<raw::Unit>) -> Checked<UnitConfig> {
        let raw = raw.get_ref();
        let socket = self.socket(&raw.socket)?;
        let guest_bdf = raw
            .guest_bdf
            .as_ref()
            .map_or(Ok(DEFAULT_UNIT_BDF), |v| self.guest_bdf(v))?;
        let caching_mode = match &raw.caching_mode {
            None => CachingMode::On,
            Some(text) => match text.get_ref().as_str() {
                "on" => CachingMode::On,
                "off" => CachingMode::Off,
                other => {
                    let told = format!("caching_mode = {other:?}: \"on\" or \"off\" is allowed");
                    return Err(self.wrong(text, told));
                }
            },
        };
        let virtual_commands = match &raw.virtual_commands {
            None if caching_mode == CachingMode::Off => VirtualCommands::Off,
            None => VirtualCommands::Current,
            Some(text) => match text.get_ref().as_str() {
                "off" => VirtualCommands::Off,
                "current" => VirtualCommands::Current,
                "older" => VirtualCommands::Older,
                other => {
                    return Err(self.wrong(
                        text,
                        format!(
                            "virtual_commands = {other:?}: \"off\", \"current\" (specification 3.3 and later) or \
                             \"older\" (Linux 5.8 to 5.14) is allowed"
                        ),
                    ));
                }
            },
        };
        if let Some(text) = &raw.virtual_commands
            && caching_mode == CachingMode::Off
            && virtual_commands != VirtualCommands::Off
        {
            let told = "guests take PASIDs from the host in caching mode alone: leave caching_mode \
                        \"on\", or write virtual_commands = \"off\"";
            return Err(self.wrong(text, told.to_owned()));
        }
        Ok(UnitConfig {
            socket,
            guest_bdf,
            virtual_commands,
            caching_mode,
        })
    }

    fn guest_bdf(&self, value: &Spanned<String>) -> Checked<Bdf> {
        let bdf = self.bdf(value)?;
        if !is_on_root_bus(bdf) {
            return Err(self.wrong(
                value,
                format!("guest_bdf {bdf}: only the root bus, 00, is allowed"),
            ));
        }
        Ok(bdf)
    }

    fn function(
        &mut self,
        tenant: &str,
        parents: &[ParentConfig],
        iommu: &GuestIommu,
        before: &[FunctionConfig],
        raw: Spanned<raw::Function>,
    ) -> Checked<FunctionConfig> {
        let raw = raw.into_inner();
        let Some(parent) = parents.iter().find(|p| p.name == *raw.parent.get_ref()) else {
            let names: Vec<&str> = parents.iter().map(|p| p.name.as_str()).collect();
            return Err(self.wrong(
                &raw.parent,
                format!(
                    "no parent {:?}: there is {}",
                    raw.parent.get_ref(),
                    names.join(", ")
                ),
            ));
        };
        let kind = self.kind(tenant, parent, &raw)?;
        let uuid = match &raw.uuid {
            None => Uuid::new_v4(),
            Some(text) => Uuid::parse_str(text.get_ref())
                .map_err(|e| self.wrong(text, format!("uuid {:?}: {e}", text.get_ref())))?,
        };
        if !self.uuids.insert(uuid) {
            return Err(match &raw.uuid {
                Some(text) => self.wrong(text, format!("uuid {uuid} is already taken")),
                None => self.wrong(&raw.parent, format!("uuid {uuid} is already taken")),
            });
        }
        let socket = self.socket(&raw.socket)?;
        let taken = |bdf: Bdf| iommu.stands_at(bdf) || before.iter().any(|f| f.guest_bdf == bdf);
        let guest_bdf = match &raw.guest_bdf {
            Some(value) => {
                let bdf = self.guest_bdf(value)?;
                if taken(bdf) {
                    return Err(self.wrong(
                        value,
                        format!("guest_bdf {bdf} is already taken in tenant {tenant:?}"),
                    ));
                }
                bdf
            }
            None => first_free(taken).ok_or_else(|| {
                self.wrong(&raw.parent, "no place is left on the guest's root bus")
            })?,
        };
        Ok(FunctionConfig {
            parent: parent.name.clone(),
            kind,
            uuid,
            socket,
            guest_bdf,
        })
    }

    fn kind(
        &mut self,
        tenant: &str,
        parent: &ParentConfig,
        raw: &raw::Function,
    ) -> Checked<FunctionKind> {
        let kind: FunctionKind =
            raw.kind.get_ref().parse().map_err(|e| {
                self.wrong(&raw.kind, format!("type = {:?}: {e}", raw.kind.get_ref()))
            })?;
        match (kind, parent.sharing) {
            (FunctionKind::Exclusive, ParentSharing::Mediated) => {
                let mut what = format!(
                    "parent {:?} is mediated: say sharing = \"exclusive\" there",
                    parent.name
                );
                if let Some(tenants) = self.sliced.get(&parent.name) {
                    let names: Vec<_> = tenants.iter().map(|t| format!("{t:?}")).collect();
                    let names = names.join(", ");
                    what = format!("{what}, and take away the slices of it that are with {names}");
                }
                return Err(self.wrong(&raw.kind, what));
            }
            (
                FunctionKind::DedicatedQueue | FunctionKind::SharedQueue,
                ParentSharing::Exclusive,
            ) => {
                let mut what = format!(
                    "parent {:?} is exclusive: only type = \"exclusive\" is allowed",
                    parent.name
                );
                if let Some(owner) = self.exclusive.get(&parent.name) {
                    what = format!("{what}, and tenant {owner:?} has that");
                }
                return Err(self.wrong(&raw.kind, what));
            }
            _ => {}
        }
        if kind == FunctionKind::Exclusive
            && let Some(owner) = self
                .exclusive
                .insert(parent.name.clone(), tenant.to_owned())
        {
            return Err(self.wrong(
                &raw.parent,
                format!(
                    "parent {:?} already belongs to tenant {owner:?} exclusively",
                    parent.name
                ),
            ));
        }
        if kind != FunctionKind::Exclusive {
            let tenants = self.sliced.entry(parent.name.clone()).or_default();
            tenants.insert(tenant.to_owned());
        }
        if kind == FunctionKind::DedicatedQueue {
            let taken = self.dedicated.entry(parent.name.clone()).or_default();
            if *taken == parent.queues {
                return Err(self.wrong(
                    &raw.kind,
                    format!(
                        "all {} queues of parent {:?} are dedicated already",
                        parent.queues, parent.name
                    ),
                ));
            }
            *taken += 1;
        }
        Ok(kind)
    }
}
