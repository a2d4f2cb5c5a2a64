//! Packages of the distribution, by its own tools and checked by its own signatures, without installing any.
//!
//! A [`Tree`] is a package manager's state of our own: its sources are the machine's mirrors (found in the
//! machine's configuration, so that whatever reaches packages here reaches these) with the releases that we
//! need, and nothing counts as installed. It downloads and never installs; the machine's own state is not touched.

mod mirrors;
mod tree;

pub(crate) use mirrors::Mirrors;
pub(crate) use tree::{Closure, Package, Release, Tree, unpack};
