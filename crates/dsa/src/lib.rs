//! An Intel-DSA-compatible accelerator
