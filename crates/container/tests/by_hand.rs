//! A client made from `docs/container.md` alone: the bytes that stand there, and nothing of this crate's client.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod common;

use std::io::{Read, Write};
use std::path::Path;

use common::*;

#[test]
fn a_client_made_from_the_page_alone() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/container.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (_, example) = page.split_once("```text\n").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    let world = World::new();
    let (mut stream, _serving) = world.serve();
    for line in example.lines() {
        let (who, bytes) = line.split_at(1);
        let bytes: Vec<u8> = bytes
            .split_whitespace()
            .map(|byte| u8::from_str_radix(byte, 16).unwrap())
            .collect();
        if who == ">" {
            stream.write_all(&bytes).unwrap();
        } else {
            let mut answer = vec![0; bytes.len()];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(answer, bytes, "{line}");
        }
    }
    assert_eq!(example.lines().count(), 6);
    assert_eq!(world.container.allocated().len(), 1);
}
