//! Tenants with slices and whole devices, by their drivers' accesses.

mod lifecycle;
mod mediation;
mod rig;
mod sharing;
mod work;
