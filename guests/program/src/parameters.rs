//! What the host asks for on the kernel's command line.

use std::str::FromStr;

use anyhow::{Context, bail};

/// The words `palisade.KEY=VALUE` of a kernel command line.
#[derive(Debug, Clone, Default)]
pub struct Parameters {
    pairs: Vec<(String, String)>,
}

impl Parameters {
    /// Those of the running kernel.
    ///
    /// # Errors
    /// `/proc/cmdline` cannot be read.
    pub fn of_this_boot() -> anyhow::Result<Self> {
        let line = std::fs::read_to_string("/proc/cmdline").context("cannot read /proc/cmdline")?;
        Ok(Self::parse(&line))
    }

    /// Those of a command line given as text. Words of others are skipped.
    #[must_use]
    pub fn parse(line: &str) -> Self {
        let pairs = line
            .split_whitespace()
            .filter_map(|word| word.strip_prefix("palisade.")?.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        Self { pairs }
    }

    /// The value of `key`, of its last occurrence.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let found = self.pairs.iter().rev().find(|(name, _)| name == key)?;
        Some(&found.1)
    }

    /// The value of `key`, parsed, or `otherwise` where it is not given.
    ///
    /// # Errors
    /// The value is given and does not parse.
    pub fn get_or<T: FromStr>(&self, key: &str, otherwise: T) -> anyhow::Result<T> {
        match self.get(key).map(|value| (value, value.parse())) {
            None => Ok(otherwise),
            Some((_, Ok(value))) => Ok(value),
            Some((value, Err(_))) => bail!("palisade.{key}={value} is not understood"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_ours_are_read_and_others_skipped() {
        let parameters =
            Parameters::parse("console=ttyS0 palisade.scenario=sva palisade.copies=12 quiet\n");
        assert_eq!(parameters.get("scenario"), Some("sva"));
        assert_eq!(parameters.get_or("copies", 0_u32).unwrap(), 12);
        assert_eq!(parameters.get_or("seconds", 7_u64).unwrap(), 7);
        assert!(parameters.get_or("scenario", 0_u32).is_err());
        assert_eq!(parameters.get("console"), None);
    }
}
