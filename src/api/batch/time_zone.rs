//! Time zones by name, from the database that is part of the binary: validation and controller read the
//! same one, whatever is installed on the machine. Names are case-sensitive.

use jiff::tz::{TimeZone, TimeZoneDatabase};

/// Why a name is none of a time zone, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimeZoneError {
    #[error("time: invalid location name")]
    InvalidName,
    #[error("unknown time zone {0}")]
    Unknown(String),
}

/// The zone of exactly this name.
///
/// # Errors
/// When there is none.
pub fn time_zone(name: &str) -> Result<TimeZone, TimeZoneError> {
    if name.contains("..") || name.starts_with(['/', '\\']) {
        return Err(TimeZoneError::InvalidName);
    }
    // The database ignores case, and knows a zone that means "unknown".
    let found = TimeZoneDatabase::bundled().get(name).ok().filter(|zone| zone.iana_name() == Some(name));
    found.filter(|zone| !zone.is_unknown()).ok_or_else(|| TimeZoneError::Unknown(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_found_by_their_exact_names() {
        for name in ["UTC", "Etc/UTC", "GMT", "Europe/Berlin", "America/Argentina/Buenos_Aires", "EST5EDT", "Etc/GMT+1"]
        {
            assert_eq!(time_zone(name).unwrap().iana_name(), Some(name), "{name}");
        }
        for name in ["europe/berlin", "utc", "Mars/Olympus", "Local", "Europe", "Etc/Unknown", ""] {
            assert_eq!(time_zone(name), Err(TimeZoneError::Unknown(name.into())), "{name}");
        }
        for name in ["../UTC", "Europe/..Berlin", "/UTC", "\\UTC"] {
            assert_eq!(time_zone(name), Err(TimeZoneError::InvalidName), "{name}");
        }
    }
}
