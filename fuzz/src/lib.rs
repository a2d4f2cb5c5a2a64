//! Every entry by which bytes come in that nobody vouches for (R78): each function here takes arbitrary bytes, makes
//! of them what a guest, a peer or a file could send, and panics if what must hold does not.
//!
//! The fuzzer's targets (`targets/`) call these, and so does the test that replays the corpora with the stable
//! toolchain. What an entry checks besides that nothing panics or hangs: no tenant has more PASIDs than its quota,
//! the platform has entries of PASIDs alone that their tenants own, no device was given a foreign PASID, and
//! another tenant's memory is as it was. Of the extension for PASIDs it checks that every message comes to what it has
//! to come to.

mod accelerator;
mod calls;
mod configuration;
mod container;
mod driver;
mod extension;
mod frames;
mod iommufd;
mod requests;
mod state;
mod tables;
mod threads;
mod unit;
mod world;

/// One entry.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The name of its target and of its corpus.
    pub name: &'static str,
    /// Runs it.
    pub run: fn(&[u8]),
}

/// All of them.
pub const ENTRIES: &[Entry] = &[
    Entry {
        name: "frames",
        run: frames::frames,
    },
    Entry {
        name: "unit",
        run: unit::unit,
    },
    Entry {
        name: "tables",
        run: tables::tables,
    },
    Entry {
        name: "accelerator",
        run: accelerator::accelerator,
    },
    Entry {
        name: "unit_state",
        run: state::unit_state,
    },
    Entry {
        name: "function_state",
        run: state::function_state,
    },
    Entry {
        name: "configuration",
        run: configuration::configuration,
    },
    Entry {
        name: "requests_v1",
        run: requests::requests_v1,
    },
    Entry {
        name: "requests_v7",
        run: requests::requests_v7,
    },
    Entry {
        name: "requests_iommufd",
        run: iommufd::requests_iommufd,
    },
    Entry {
        name: "container_frames",
        run: container::container_frames,
    },
    Entry {
        name: "extension_server",
        run: extension::extension_server,
    },
    Entry {
        name: "extension_client",
        run: extension::extension_client,
    },
];

/// Runs the entry of this name, in a process that does nothing else: what an input started ends with it, so that
/// the next one finds no thread and no memory of it.
///
/// # Panics
/// When there is none, or when what must hold does not.
pub fn run(name: &str, bytes: &[u8]) {
    let entry = ENTRIES.iter().find(|entry| entry.name == name);
    let run = entry.expect("an entry of this name").run;
    threads::leaving_none(|| run(bytes));
}
