//! The VT-d unit that a guest sees
