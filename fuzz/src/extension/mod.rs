//! The extension by which PASIDs cross a connection (docs/vfio-user-pasid.md), from both sides: a hostile client of our
//! server, and a hostile server of our client.
//!
//! In each half one thread plays the hostile side and what stands behind ours, a device or a VMM. It goes from one
//! quiet point to the next, so that an input does the same each time, and it knows what must come of what it has sent:
//! it cuts its own stream into messages and says of each what it is answered with, what it answers, or how it ends the
//! connection.
//!
//! The corpora begin with inputs that are put together by hand, in `seeds.rs`.

mod answer;
mod client;
mod device;
mod lies;
mod questions;
mod sent_by_client;
mod sent_by_server;
mod server;
mod socket;
mod values;
mod vmm;

#[cfg(test)]
mod seeds;

pub(crate) use client::extension_client;
pub(crate) use server::extension_server;
