//! What runs inside a guest: the test program of the scenarios

fn main() {}
