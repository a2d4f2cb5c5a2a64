//! Share one accelerator between virtual machines, each guest process by its own addresses

fn main() {}
