use core::{fmt, str::FromStr};

/// A function's place on the bus, which is also its requester id: bus 15:8, device 7:3, function 2:0
/// (PCIe 2.2.6.2). Printed and read as `bb:dd.f`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bdf(u16);

impl Bdf {
    /// The function `function` (0 to 7) of device `device` (0 to 31); higher bits are dropped.
    #[must_use]
    pub const fn new(bus: u8, device: u8, function: u8) -> Self {
        Self(((bus as u16) << 8) | (((device & 0x1f) as u16) << 3) | (function & 7) as u16)
    }

    /// From a requester id.
    #[must_use]
    pub const fn from_requester_id(id: u16) -> Self {
        Self(id)
    }

    /// The requester id.
    #[must_use]
    pub const fn requester_id(self) -> u16 {
        self.0
    }

    /// The bus number.
    #[must_use]
    pub const fn bus(self) -> u8 {
        self.0.to_be_bytes()[0]
    }

    /// The device number, 0 to 31.
    #[must_use]
    pub const fn device(self) -> u8 {
        self.devfn() >> 3
    }

    /// The function number, 0 to 7.
    #[must_use]
    pub const fn function(self) -> u8 {
        self.devfn() & 7
    }

    /// Device and function as one byte, the index of a context table.
    #[must_use]
    pub const fn devfn(self) -> u8 {
        self.0.to_be_bytes()[1]
    }
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:02x}:{:02x}.{}",
            self.bus(),
            self.device(),
            self.function()
        )
    }
}

/// The text is not a function's place on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a PCI function: write bus:device.function in hexadecimal, as in 00:10.0 (bus to ff, device to 1f, function to 7)"
)]
pub struct ParseBdfError;

impl FromStr for Bdf {
    type Err = ParseBdfError;

    fn from_str(text: &str) -> Result<Self, ParseBdfError> {
        let (bus, rest) = text.split_once(':').ok_or(ParseBdfError)?;
        let (device, function) = rest.split_once('.').ok_or(ParseBdfError)?;
        let number = |digits: &str, max: u8| {
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
            let value = plain.then(|| u8::from_str_radix(digits, 16).ok()).flatten();
            value.filter(|v| *v <= max).ok_or(ParseBdfError)
        };
        Ok(Self::new(
            number(bus, 0xff)?,
            number(device, 0x1f)?,
            number(function, 7)?,
        ))
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn prints_and_parses_the_same() {
        let bdf = Bdf::new(0x6a, 0x1f, 7);
        assert_eq!(bdf.to_string(), "6a:1f.7");
        assert_eq!("6a:1f.7".parse(), Ok(bdf));
        assert_eq!(bdf.requester_id(), 0x6aff);
    }

    #[test]
    fn refuses_what_no_bus_has() {
        for text in [
            "", "00", "00:10", "00:20.0", "00:10.8", "+0:10.0", "0:1.0x", "100:1.0",
        ] {
            assert_eq!(text.parse::<Bdf>(), Err(ParseBdfError), "{text}");
        }
    }
}
