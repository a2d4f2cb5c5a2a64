//! The PASID authority of a host
