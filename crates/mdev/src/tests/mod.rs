//! Tenants with slices and whole devices, by their drivers' accesses.

mod commands;
mod left_over;
mod lifecycle;
mod mediation;
mod migration;
mod rig;
mod sharing;
mod trap_map;
mod work;
