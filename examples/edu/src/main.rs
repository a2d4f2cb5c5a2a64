//! Serves the device and a unit to one machine: `palisade-example-edu FOLDER`.
fn main() {}
