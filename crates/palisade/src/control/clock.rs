//! Times of the host: nanoseconds since 1970, and how people read them.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use palisade_ioasid::{Clock, Timestamp};

/// Nanoseconds since 1970, for the times of events.
pub(crate) struct WallClock;

impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp::from_nanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// A moment, as in `2026-02-28 23:59:59Z`, or with its thousandths as `{:#}`: `2026-02-28 23:59:59.250Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Utc {
    /// Days since 1970-01-01.
    days: u64,
    second_of_day: u64,
    millis: u64,
}

impl Utc {
    pub(super) fn from_ns(ns: u64) -> Self {
        let seconds = ns / 1_000_000_000;
        Self {
            days: seconds / 86_400,
            second_of_day: seconds % 86_400,
            millis: ns / 1_000_000 % 1000,
        }
    }

    /// Year, month from 1, day from 1 of the Gregorian calendar.
    fn date(self) -> (u64, u64, u64) {
        let is_leap =
            |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
        let (mut year, mut day) = (1970, self.days);
        // 2^64 ns are 584 years.
        while day >= 365 + u64::from(is_leap(year)) {
            day -= 365 + u64::from(is_leap(year));
            year += 1;
        }
        let february = 28 + u64::from(is_leap(year));
        let mut month = 1;
        for len in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
            if day < len {
                break;
            }
            day -= len;
            month += 1;
        }
        (year, month, day + 1)
    }
}

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.date();
        let (hour, minute) = (self.second_of_day / 3600, self.second_of_day / 60 % 60);
        let second = self.second_of_day % 60;
        write!(
            f,
            "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}"
        )?;
        if f.alternate() {
            write!(f, ".{:03}", self.millis)?;
        }
        f.write_str("Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_read_as_dates() {
        // As `date -u -d @SECONDS` says.
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_399, "2000-02-28 23:59:59Z"),
            (951_782_400, "2000-02-29 00:00:00Z"),
            (1_735_689_599, "2024-12-31 23:59:59Z"),
            (1_772_323_199, "2026-02-28 23:59:59Z"),
            (1_772_323_200, "2026-03-01 00:00:00Z"),
            (4_107_542_400, "2100-03-01 00:00:00Z"),
        ] {
            assert_eq!(Utc::from_ns(seconds * 1_000_000_000).to_string(), text);
        }
        let with_thousandths = format!("{:#}", Utc::from_ns(951_782_399_007_999_999));
        assert_eq!(with_thousandths, "2000-02-28 23:59:59.007Z");
        assert!(Utc::from_ns(u64::MAX).to_string().starts_with("2554-07-21"));
    }
}
