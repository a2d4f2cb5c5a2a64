//! Inputs that are put together by hand: each command comes to a good end in one of them, and the usual ways out are in
//! others. `UPDATE_CORPUS=1 cargo test -p palisade-fuzz-entries seeds` writes them to the corpora.

use std::collections::BTreeSet;
use std::{env, fs, path::Path};

use super::{client, server};

/// An offer of all, and a VERSION that proposes as much.
const AGREED: &[u8] = &[0; 13];
/// The same without the container's requests, and with page groups and invalidations of which there is one at a time.
const NARROW: &[u8] = &[0, 1, 1, 2, 2, 1, 2, 0, 0, 0, 0, 0, 0];
/// A VERSION that does not name the extension.
const PLAIN: &[u8] = &[0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0];

const READ: &[u8] = &[0, 0, 0x81, 0, 1];
const WRITE: &[u8] = &[1, 0, 0x82, 0, 1];
const TRANSLATE: &[u8] = &[2, 0, 0x81, 0, 0, 0];
const PAGES: &[u8] = &[3, 0, 0x81, 0, 0];
const INTERRUPT: &[u8] = &[4, 0];
const ANSWER: &[u8] = &[5, 0, 0, 1, 1];
const ANSWER_TO_WRITE: &[u8] = &[5, 0, 0];
const ANSWER_TO_PAGES: &[u8] = &[5, 0, 0, 0];
const ANSWER_TO_READ: &[u8] = &[5, 0, 0, 0x77];
const REFUSAL: &[u8] = &[5, 8, 0, 0x77, 0];
const OTHER_ID: &[u8] = &[5, 13, 0, 0x77];
const INVALIDATE: &[u8] = &[6, 8, 0, 0x80, 0, 0];
const INVALIDATE_ALL: &[u8] = &[6, 16, 0, 3];
const REQUEST: &[u8] = &[7, 24, 0, 1, 0, 0];
const REQUEST_BESIDE: &[u8] = &[7, 32, 4, 1, 2, 4];
const COMPLETE: &[u8] = &[10, 0, 1];
const COMPLETE_REQUEST: &[u8] = &[11, 0];
const LATER: &[u8] = &[12, 1, 1];
const NEVER: &[u8] = &[12, 2, 2];
const NOT_INTERESTED: &[u8] = &[13, 0];
const STOP: &[u8] = &[14, 0];
const SYNC: &[u8] = &[15];
const HALF_A_HEADER: &[u8] = &[9, 4, 1, 0, 5, 0x80];

/// A translation whose answer may be kept.
const KEPT: &[u8] = &[5, 0, 0, 0, 1];

const OF_CLIENTS: &[(&str, &[&[u8]])] = &[
    (
        "accesses",
        &[
            AGREED,
            READ,
            ANSWER_TO_READ,
            SYNC,
            WRITE,
            ANSWER_TO_WRITE,
            INTERRUPT,
            SYNC,
        ],
    ),
    (
        "translations",
        &[
            AGREED,
            TRANSLATE,
            KEPT,
            SYNC,
            INVALIDATE,
            SYNC,
            TRANSLATE,
            KEPT,
            INVALIDATE_ALL,
            SYNC,
        ],
    ),
    (
        "pages",
        &[
            AGREED,
            PAGES,
            PAGES,
            PAGES,
            ANSWER_TO_PAGES,
            ANSWER_TO_PAGES,
            SYNC,
        ],
    ),
    (
        "late",
        &[
            AGREED,
            LATER,
            INVALIDATE,
            REQUEST,
            SYNC,
            COMPLETE,
            COMPLETE_REQUEST,
            NEVER,
            INVALIDATE,
            REQUEST_BESIDE,
            SYNC,
        ],
    ),
    ("requests", &[AGREED, REQUEST, REQUEST_BESIDE, SYNC]),
    (
        "busy",
        &[
            NARROW, READ, READ, TRANSLATE, PAGES, PAGES, LATER, INVALIDATE, INVALIDATE, SYNC,
        ],
    ),
    (
        "refused",
        &[
            AGREED,
            READ,
            REFUSAL,
            SYNC,
            TRANSLATE,
            NOT_INTERESTED,
            ANSWER,
            SYNC,
        ],
    ),
    ("to-nothing", &[AGREED, READ, OTHER_ID, SYNC]),
    (
        "plain",
        &[PLAIN, READ, INVALIDATE, REQUEST, INTERRUPT, SYNC],
    ),
    ("stopped", &[AGREED, READ, TRANSLATE, STOP]),
    ("torn", &[AGREED, READ, HALF_A_HEADER]),
];

/// A proposal of all, and a server that agrees to it.
const SERVED: &[u8] = &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1];
const ASKS_READ: &[u8] = &[0, 0, 8, 0, 0x81, 0, 1];
const ASKS_WRITE: &[u8] = &[0, 1, 16, 0, 0x82, 0, 1];
const ASKS_TRANSLATE: &[u8] = &[0, 2, 24, 0, 0x81, 0, 0, 1, 1];
const ASKS_PAGES_NOW: &[u8] = &[0, 3, 32, 0, 0x81, 1, 0, 0];
const ASKS_PAGES_LATER: &[u8] = &[0, 3, 40, 0, 0x81, 0, 0, 0];
const ASKS_OF_NOBODY: &[u8] = &[0, 0, 48, 3, 0x81, 0, 1];
const WRITES_MEMORY: &[u8] = &[6, 56, 0, 2, 7, 7, 1, 1];
const POLL: &[u8] = &[15];
const RESPOND: &[u8] = &[10, 0, 0];
const INVALIDATED: &[u8] = &[11, 0, 1, 0, 0, 0, 0];
const REQUESTED: &[u8] = &[11, 1, 7, 0, 0, 2, 5, 5, 2, 0];
const REQUEST_REFUSED: &[u8] = &[11, 1, 7, 0, 0, 0, 2, 8];
const RESET: &[u8] = &[11, 2, 0, 0, 0];
const BESIDE_A_WRITE: &[u8] = &[9, 0, 56, 0, 1, 7, 1, 1, 1];

const OF_SERVERS: &[(&str, &[&[u8]])] = &[
    (
        "accesses",
        &[
            SERVED,
            ASKS_READ,
            ASKS_WRITE,
            ASKS_OF_NOBODY,
            WRITES_MEMORY,
            POLL,
        ],
    ),
    (
        "translations",
        &[SERVED, ASKS_TRANSLATE, POLL, INVALIDATED, POLL],
    ),
    (
        "pages",
        &[
            SERVED,
            ASKS_PAGES_NOW,
            ASKS_PAGES_LATER,
            ASKS_PAGES_LATER,
            POLL,
            RESPOND,
            POLL,
        ],
    ),
    (
        "requests",
        &[SERVED, REQUESTED, REQUEST_REFUSED, RESET, POLL],
    ),
    (
        "descriptors",
        &[SERVED, BESIDE_A_WRITE, POLL, REQUESTED, POLL],
    ),
];

fn check(folder: &str, seeds: &[(&str, &[&[u8]])], play: fn(&[u8]) -> BTreeSet<u16>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(folder);
    let mut reached = BTreeSet::new();
    for (name, parts) in seeds {
        let (bytes, file) = (parts.concat(), folder.join(name));
        reached.extend(play(&bytes));
        if env::var_os("UPDATE_CORPUS").is_some() {
            fs::write(&file, &bytes).unwrap();
        }
        assert_eq!(
            fs::read(&file).unwrap(),
            bytes,
            "UPDATE_CORPUS=1 writes {name}"
        );
    }
    for command in 0x8001..=0x8006 {
        assert!(reached.contains(&command), "no seed reaches {command:#x}");
    }
}

#[test]
fn seeds_of_clients_reach_every_command() {
    check("extension_server", OF_CLIENTS, server::play);
}

#[test]
fn seeds_of_servers_reach_every_command() {
    check("extension_client", OF_SERVERS, client::play);
}
