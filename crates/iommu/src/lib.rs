//! The platform IOMMU
