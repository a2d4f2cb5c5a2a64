//! What may be asked of an iommufd and of its devices.

use crate::abi::Number;

/// The file that a call is made on: a message names it, as the connection is all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum On {
    /// The iommufd itself.
    Iommufd,
    /// The device file of the function at this place in the guest.
    Device(palisade_units::Bdf),
}

impl On {
    /// The bit that says that it is a device, above its place.
    const DEVICE: u32 = 1 << 16;

    /// As a message has it: 0 for the iommufd, 0x10000 and the place for a device.
    #[must_use]
    pub fn raw(self) -> u32 {
        match self {
            Self::Iommufd => 0,
            Self::Device(place) => Self::DEVICE | u32::from(place.requester_id()),
        }
    }

    /// `None` for what is neither.
    #[must_use]
    pub fn from_raw(raw: u32) -> Option<Self> {
        if raw == 0 {
            return Some(Self::Iommufd);
        }
        let place = u16::try_from(raw.checked_sub(Self::DEVICE)?).ok()?;
        Some(Self::Device(palisade_units::Bdf::from_requester_id(place)))
    }
}

/// Which files have a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// The iommufd.
    Iommufd,
    /// Device files.
    Device,
}

macro_rules! requests {
    ($($(#[$doc:meta])* $name:ident = $family:ident + $n:literal, $text:literal, $shortest:literal;)*) => {
        /// What can be asked for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum IommufdRequest {
            $($(#[$doc])* $name,)*
        }

        impl IommufdRequest {
            /// Every request.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The number of the call: `_IO(';', n)`.
            #[must_use]
            pub const fn number(self) -> Number {
                Number::new((b';' as u32) << 8 | match self {
                    $(Self::$name => $n,)*
                })
            }

            /// Which files have it.
            #[must_use]
            pub const fn family(self) -> Family {
                match self {
                    $(Self::$name => Family::$family,)*
                }
            }

            /// Its name as C code spells it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// The shortest size that its argument may say.
            #[must_use]
            pub const fn shortest(self) -> u32 {
                match self {
                    $(Self::$name => $shortest,)*
                }
            }
        }
    };
}

requests! {
    /// Destroys an object that nothing uses.
    Destroy = Iommufd + 0x80, "IOMMU_DESTROY", 8;
    /// Makes a space of addresses.
    IoasAlloc = Iommufd + 0x81, "IOMMU_IOAS_ALLOC", 12;
    /// Tells where in one memory may be mapped.
    IoasIovaRanges = Iommufd + 0x84, "IOMMU_IOAS_IOVA_RANGES", 32;
    /// Unmaps memory from one.
    IoasUnmap = Iommufd + 0x86, "IOMMU_IOAS_UNMAP", 24;
    /// Makes a table: of a space, or nested in another table.
    HwptAlloc = Iommufd + 0x89, "IOMMU_HWPT_ALLOC", 24;
    /// Tells what the unit of a device can do.
    GetHwInfo = Iommufd + 0x8a, "IOMMU_GET_HW_INFO", 32;
    /// Makes caches forget of a nested table.
    HwptInvalidate = Iommufd + 0x8d, "IOMMU_HWPT_INVALIDATE", 32;
    /// Makes a queue of page requests, with a file.
    FaultQueueAlloc = Iommufd + 0x8e, "IOMMU_FAULT_QUEUE_ALLOC", 16;
    /// Maps a part of a file into a space.
    IoasMapFile = Iommufd + 0x8f, "IOMMU_IOAS_MAP_FILE", 40;
    /// Makes a virtual unit.
    ViommuAlloc = Iommufd + 0x90, "IOMMU_VIOMMU_ALLOC", 24;
    /// Gives a device a name at a virtual unit.
    VdeviceAlloc = Iommufd + 0x91, "IOMMU_VDEVICE_ALLOC", 24;
    /// Makes a queue of a virtual unit's events, with a file.
    VeventqAlloc = Iommufd + 0x93, "IOMMU_VEVENTQ_ALLOC", 32;
    /// Lists the functions that the client has or may have. The same as of the other forms.
    FunctionList = Iommufd + 0xf0, "PALISADE_FUNCTION_LIST", 12;
    /// Binds a device to the iommufd.
    DeviceBind = Device + 0x76, "VFIO_DEVICE_BIND_IOMMUFD", 16;
    /// Attaches a device, or a PASID of it, to a table; replaces what it was attached to.
    DeviceAttach = Device + 0x77, "VFIO_DEVICE_ATTACH_IOMMUFD_PT", 12;
    /// Detaches it.
    DeviceDetach = Device + 0x78, "VFIO_DEVICE_DETACH_IOMMUFD_PT", 8;
    /// Closes a device file: the device is no longer bound.
    DeviceClose = Device + 0xf2, "PALISADE_FUNCTION_DETACH", 12;
}

impl IommufdRequest {
    /// How many descriptors come with it.
    #[must_use]
    pub const fn descriptors(self) -> usize {
        match self {
            Self::IoasMapFile => 1,
            _ => 0,
        }
    }

    /// The request with this number; `None` where there is none.
    #[must_use]
    pub fn from_number(number: Number) -> Option<Self> {
        let mut all = Self::ALL.iter().copied();
        all.find(|request| request.number() == number)
    }
}

#[cfg(test)]
mod tests {
    use palisade_units::Bdf;

    use super::*;

    #[test]
    fn r75_numbers_are_those_of_linux() {
        use IommufdRequest as R;
        for (request, number) in [
            (R::Destroy, 0x3b80),
            (R::IoasAlloc, 0x3b81),
            (R::IoasIovaRanges, 0x3b84),
            (R::IoasUnmap, 0x3b86),
            (R::HwptAlloc, 0x3b89),
            (R::GetHwInfo, 0x3b8a),
            (R::HwptInvalidate, 0x3b8d),
            (R::FaultQueueAlloc, 0x3b8e),
            (R::IoasMapFile, 0x3b8f),
            (R::ViommuAlloc, 0x3b90),
            (R::VdeviceAlloc, 0x3b91),
            (R::VeventqAlloc, 0x3b93),
            (R::DeviceBind, 0x3b76),
            (R::DeviceAttach, 0x3b77),
            (R::DeviceDetach, 0x3b78),
        ] {
            assert_eq!(request.number(), Number::new(number), "{request:?}");
            assert_eq!(R::from_number(Number::new(number)), Some(request));
        }
    }

    #[test]
    fn r75_a_message_names_the_file() {
        for on in [
            On::Iommufd,
            On::Device(Bdf::new(0, 4, 0)),
            On::Device(Bdf::new(0, 0, 0)),
        ] {
            assert_eq!(On::from_raw(on.raw()), Some(on));
        }
        for raw in [1, 0xffff, 0x2_0000, u32::MAX] {
            assert_eq!(On::from_raw(raw), None);
        }
    }
}
