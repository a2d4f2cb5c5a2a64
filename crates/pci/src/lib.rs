//! PCI configuration space and the trait of a served function
