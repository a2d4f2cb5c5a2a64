use serde_json::{Map, Value, json};

use super::{MAP_PAGE_BYTES, MAX_DATA_BYTES, MAX_DESCRIPTORS, pasid::PasidCapability};

/// What one side says of itself in VERSION (vfio-user, VFIO_USER_VERSION). Names that are not known
/// are passed over, as the protocol wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// How many descriptors it can take with one message.
    pub max_descriptors: u64,
    /// How many bytes it can take in one read or write.
    pub max_data_bytes: u64,
    /// How many maps it can have at a time.
    pub max_maps: u64,
    /// The page sizes of maps, or'ed together.
    pub page_sizes: u64,
    /// Whether it knows REGION_WRITE_MULTI.
    pub write_multi: bool,
    /// The page size of its bitmaps of written pages, if it can migrate. Revisions before the present one have
    /// this; those who know the present one alone ask for the features instead.
    pub migration_page_bytes: Option<u64>,
}

impl Default for Capabilities {
    /// What holds for a side that says nothing.
    fn default() -> Self {
        Self {
            max_descriptors: 1,
            max_data_bytes: 1 << 20,
            max_maps: 65_535,
            page_sizes: 4096,
            write_multi: false,
            migration_page_bytes: None,
        }
    }
}

/// The text after the version is not what the protocol says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("capabilities: {0}")]
pub struct BadCapabilities(pub(super) &'static str);

impl Capabilities {
    /// What this implementation says of itself, with room for `max_maps` maps.
    #[must_use]
    pub const fn own(max_maps: u64) -> Self {
        Self {
            max_descriptors: MAX_DESCRIPTORS as u64,
            max_data_bytes: MAX_DATA_BYTES as u64,
            max_maps,
            page_sizes: MAP_PAGE_BYTES,
            write_multi: true,
            migration_page_bytes: Some(MAP_PAGE_BYTES),
        }
    }

    /// Reads the text of a VERSION message; none at all stands for the defaults.
    ///
    /// # Errors
    /// [`BadCapabilities`] where the text is not NUL-terminated JSON of the right shape, or a number
    /// leaves nothing to work with.
    pub fn parse(text: &[u8]) -> Result<Self, BadCapabilities> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let Some(json) = text.strip_suffix(&[0]) else {
            return Err(BadCapabilities("the text must end with a NUL"));
        };
        let value: Value = serde_json::from_slice(json)
            .map_err(|_| BadCapabilities("the text must be JSON in UTF-8"))?;
        let Value::Object(top) = value else {
            return Err(BadCapabilities("the text must be a JSON object"));
        };
        let names = match top.get("capabilities") {
            None => return Ok(Self::default()),
            Some(Value::Object(names)) => names,
            Some(_) => return Err(BadCapabilities("`capabilities` must be an object")),
        };
        let default = Self::default();
        let parsed = Self {
            max_descriptors: number(names, "max_msg_fds", default.max_descriptors)?,
            max_data_bytes: number(names, "max_data_xfer_size", default.max_data_bytes)?,
            max_maps: number(names, "max_dma_maps", default.max_maps)?,
            page_sizes: number(names, "pgsizes", default.page_sizes)?,
            write_multi: names.get("write_multiple") == Some(&Value::Bool(true)),
            migration_page_bytes: match names.get("migration") {
                None => None,
                Some(Value::Object(names)) => Some(number(names, "pgsize", MAP_PAGE_BYTES)?),
                Some(_) => return Err(BadCapabilities("`migration` must be an object")),
            },
        };
        if parsed
            .migration_page_bytes
            .is_some_and(|it| !it.is_power_of_two())
        {
            return Err(BadCapabilities("`pgsize` must be a power of two"));
        }
        if parsed.max_data_bytes < 8 {
            return Err(BadCapabilities("`max_data_xfer_size` must be at least 8"));
        }
        if parsed.page_sizes & MAP_PAGE_BYTES == 0 {
            return Err(BadCapabilities("`pgsizes` must include 4096"));
        }
        Ok(parsed)
    }

    /// The text of a VERSION message, its NUL included.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        self.text_with(None)
    }

    /// The same, which names the extension if there is one to name.
    #[must_use]
    pub fn text_with(&self, extension: Option<&PasidCapability>) -> Vec<u8> {
        let mut names = json!({
            "max_msg_fds": self.max_descriptors,
            "max_data_xfer_size": self.max_data_bytes,
            "max_dma_maps": self.max_maps,
            "pgsizes": self.page_sizes,
        });
        if self.write_multi {
            names["write_multiple"] = Value::Bool(true);
        }
        if let Some(page_bytes) = self.migration_page_bytes {
            names["migration"] = json!({ "pgsize": page_bytes });
        }
        if let Some(extension) = extension {
            names["pasid"] = extension.json();
        }
        let mut text = json!({ "capabilities": names }).to_string().into_bytes();
        text.push(0);
        text
    }
}

pub(super) fn number(
    names: &Map<String, Value>,
    name: &str,
    default: u64,
) -> Result<u64, BadCapabilities> {
    match names.get(name) {
        None => Ok(default),
        Some(value) => value
            .as_u64()
            .ok_or(BadCapabilities("limits must be whole numbers from 0 on")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_heard() {
        let own = Capabilities::own(1024);
        assert_eq!(Capabilities::parse(&own.text()), Ok(own));
    }

    #[test]
    fn silence_means_the_defaults() {
        for text in [&b""[..], b"{}\0", b"{\"capabilities\":{}}\0"] {
            assert_eq!(Capabilities::parse(text), Ok(Capabilities::default()));
        }
    }

    #[test]
    fn a_qemu_offer_is_understood() {
        let offer = b"{\"capabilities\":{\"pgsizes\":4096,\"max_msg_fds\":16,\"max_dma_maps\":65535,\
            \"max_data_xfer_size\":1048576,\"migration\":{\"pgsize\":4096},\"write_multiple\":true}}\0";
        let parsed = Capabilities::parse(offer).unwrap();
        assert_eq!(parsed.max_data_bytes, 1 << 20);
        assert!(parsed.write_multi);
        assert_eq!(parsed.migration_page_bytes, Some(4096));
    }

    #[test]
    fn r78_text_that_is_no_capability_list_is_refused() {
        let deep = [vec![b'['; 60_000], vec![0]].concat();
        for text in [
            &b"{}"[..],
            b"\0",
            b"[]\0",
            b"{\"capabilities\":3}\0",
            b"{\"capabilities\":{\"max_msg_fds\":-1}}\0",
            b"{\"capabilities\":{\"max_data_xfer_size\":0}}\0",
            b"{\"capabilities\":{\"pgsizes\":2097152}}\0",
            b"{\"capabilities\":{\"migration\":true}}\0",
            b"{\"capabilities\":{\"migration\":{\"pgsize\":\"4k\"}}}\0",
            b"{\"capabilities\":{\"migration\":{\"pgsize\":4095}}}\0",
            b"\xff\xfe\0",
            &deep,
        ] {
            assert!(Capabilities::parse(text).is_err());
        }
    }
}
