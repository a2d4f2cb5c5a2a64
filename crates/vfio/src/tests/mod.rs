//! What a tenant may ask for, on a real authority, a real platform and real memory.

mod abi;
mod adopting;
mod allocating;
mod audit;
mod bind_all;
mod binding;
mod closing;
mod fault_ring;
mod faults;
mod iommufd;
mod model;
mod racing;
mod reaching;
mod sharing;
mod world;
