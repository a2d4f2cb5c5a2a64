//! The names of things: PASIDs, addresses, functions, tenants, accesses
