//! What a VMM may ask of the host
