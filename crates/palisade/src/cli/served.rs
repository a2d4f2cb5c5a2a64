//! The functions of a tenant: those of the configuration, and what the running host has made besides.

use anyhow::Context;
use palisade_host::{
    config::{HostConfig, TenantConfig},
    control::{self, Origin},
    vm::Served,
};

/// The unit of a tenant.
pub(super) fn unit(tenant: &TenantConfig) -> anyhow::Result<Served> {
    let unit = tenant.iommu.unit().with_context(|| {
        let name = &tenant.name;
        format!("tenant {name:?} brings an IOMMU of its own, which QEMU does not: give it a unit")
    })?;
    Ok(Served {
        bdf: unit.guest_bdf,
        socket: unit.socket.clone(),
    })
}

/// The functions that the configuration gives a tenant.
pub(super) fn configured(tenant: &TenantConfig) -> Vec<Served> {
    let served = tenant.functions.iter().map(|f| Served {
        bdf: f.guest_bdf,
        socket: f.socket.clone(),
    });
    served.collect()
}

/// The functions that the operator made for a tenant of a running host; none where the configuration names no
/// socket to make any over.
pub(super) fn made_at_run_time(
    config: &HostConfig,
    tenant: &TenantConfig,
) -> anyhow::Result<Vec<Served>> {
    let Some(socket) = &config.control else {
        return Ok(Vec::new());
    };
    let lines = control::ask_mdevs(socket)?.mdevs.into_iter();
    let own = lines.filter(|l| l.tenant == tenant.name && l.origin == Origin::RunTime);
    own.map(|line| {
        Ok(Served {
            bdf: line.guest_bdf.parse().context("the host's answer")?,
            socket: line.socket.into(),
        })
    })
    .collect()
}
