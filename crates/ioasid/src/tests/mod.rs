//! What the room does, by subject. What is here is for all of them.

mod allocation;
mod events;
mod groups;
mod kernel;
mod life;
mod listeners;
mod racing;
mod tenants;

use palisade_units::{Bdf, GuestPasid, HostPasid, TenantId};

use crate::{Authority, IoasidError, PasidSet, Quota};

const ALICE: TenantId = TenantId::new(1);
const BOB: TenantId = TenantId::new(2);
const PLACE: Bdf = Bdf::new(0, 3, 0);

const ENOENT: i32 = 2;
const EAGAIN: i32 = 11;
const EACCES: i32 = 13;
const EBUSY: i32 = 16;
const EEXIST: i32 = 17;
const EINVAL: i32 = 22;
const ENOSPC: i32 = 28;

fn host(raw: u32) -> HostPasid {
    HostPasid::new(raw).unwrap()
}

fn guest(raw: u32) -> GuestPasid {
    GuestPasid::new(raw).unwrap()
}

fn errno<T: std::fmt::Debug>(answer: Result<T, IoasidError>) -> i32 {
    answer.unwrap_err().errno()
}

fn alice_and_bob() -> (Authority, PasidSet, PasidSet) {
    let authority = Authority::new(&[]);
    let alice = authority.create_set(ALICE, Quota::default()).unwrap();
    let bob = authority.create_set(BOB, Quota::default()).unwrap();
    (authority, alice, bob)
}
