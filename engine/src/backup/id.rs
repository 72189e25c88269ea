//! Names of backups: the moment, and a number drawn, so that names sort by time and no two are equal.
//!
//! ```text
//! 20261126t222254.123456z-1a2b3c4d
//! ```

use std::fmt;

/// The name of a backup, which sorts by the moment it began.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BackupId(String);

const LENGTH: usize = 32;

impl BackupId {
    /// The name of a backup that begins now, by the wall clock in microseconds since 1970. Behind `newest`, whatever the
    /// clock says: the node that made that one may have had another.
    #[must_use]
    pub(super) fn new(wall_micros: u64, draw: u128, newest: Option<&Self>) -> Self {
        let mut micros = wall_micros.min(LAST_MICROS);
        let draw = draw as u32;
        loop {
            let id = Self::at(micros, draw);
            match newest {
                Some(newest) if id.moment() <= newest.moment() => micros = newest.micros() + 1,
                _ => return id,
            }
        }
    }

    fn at(micros: u64, draw: u32) -> Self {
        let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = date(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        Self(format!("{year:04}{month:02}{day:02}t{hour:02}{minute:02}{second:02}.{micros:06}z-{draw:08x}"))
    }

    fn moment(&self) -> &str {
        &self.0[..LENGTH - 8]
    }

    /// Microseconds since 1970.
    fn micros(&self) -> u64 {
        let number = |range: std::ops::Range<usize>| self.0[range].parse::<u64>().expect("checked when it was parsed");
        let days = days_until(number(0..4), number(4..6), number(6..8));
        let second = number(9..11) * 3600 + number(11..13) * 60 + number(13..15);
        (days * 86_400 + second) * 1_000_000 + number(16..22)
    }

    /// Reads a name; `None` if it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        const PATTERN: &[u8; LENGTH] = b"00000000t000000.000000z-xxxxxxxx";
        let fits = text.len() == LENGTH
            && text.bytes().zip(PATTERN).all(|(byte, pattern)| match pattern {
                b'0' => byte.is_ascii_digit(),
                b'x' => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
                sign => byte == *sign,
            });
        let id = fits.then(|| Self(text.to_owned()))?;
        let draw = u32::from_str_radix(&text[LENGTH - 8..], 16).ok()?;
        let real = id.0[..4] >= *"1970" && (b"01"..=b"12").contains(&id.0.as_bytes()[4..6].first_chunk()?);
        (real && Self::at(id.micros(), draw) == id).then_some(id)
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The last microsecond of the year 9999.
const LAST_MICROS: u64 = 253_402_300_799_999_999;

/// Year, month and day of a day since 1970-01-01, after Howard Hinnant, "chrono-compatible low-level date algorithms".
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * day + 2) / 153;
    let day = day - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

/// The other way round.
fn days_until(year: u64, month: u64, day: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let (era, year) = (year / 400, year % 400);
    let shifted = (month + 9) % 12;
    let day = (153 * shifted + 2) / 5 + day.max(1) - 1;
    era * 146_097 + year * 365 + year / 4 - year / 100 + day - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_its_moment() {
        let id = BackupId::new(1_795_731_774_123_456, 0x1_1a2b_3c4d, None);
        assert_eq!(id.as_str(), "20261126t222254.123456z-1a2b3c4d");
        assert_eq!(BackupId::new(951_782_400_000_000, 0, None).as_str(), "20000229t000000.000000z-00000000");
        for micros in (0..4000).map(|step| step * 86_399_123_456 * 7).chain([0, LAST_MICROS]) {
            let id = BackupId::new(micros, 7, None);
            assert_eq!((id.micros(), BackupId::parse(id.as_str())), (micros, Some(id.clone())));
        }
    }

    #[test]
    fn a_clock_that_goes_back_does_not_change_the_order() {
        let first = BackupId::new(5_000_000, 9, None);
        for wall in [0, 4_999_999, 5_000_000] {
            let next = BackupId::new(wall, 1, Some(&first));
            assert!(next > first && next.micros() == 5_000_001, "{next}");
        }
        assert_eq!(BackupId::new(6_000_000, 1, Some(&first)).micros(), 6_000_000);
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let good = "20261126t222254.123456z-1a2b3c4d";
        assert!(BackupId::parse(good).is_some());
        for bad in [
            "",
            "lost+found",
            "20261126T222254.123456z-1a2b3c4d",
            "20261326t222254.123456z-1a2b3c4d",
            "20261131t222254.123456z-1a2b3c4d",
            "20260026t222254.123456z-1a2b3c4d",
            "00011126t222254.123456z-1a2b3c4d",
            "20261126t222260.123456z-1a2b3c4d",
            "20261126t222254.123456z-1a2b3c4D",
            "20261126t222254.123456z-1a2b3c4",
        ] {
            assert_eq!(BackupId::parse(bad), None, "{bad}");
        }
    }
}
