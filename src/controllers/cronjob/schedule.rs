//! When a cron schedule next comes due, on the wall clock of a time zone.

use api::batch::cron_schedule::{CronSchedule, Fields};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Span, Timestamp};

/// No schedule that ever comes due is silent longer (29 February across a year like 2100).
const HORIZON_YEARS: i16 = 9;

/// The first time after `after`; `None` for a date that does not exist. A time that a change of the
/// clocks leaves out is left out.
pub(super) fn next(schedule: &CronSchedule, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let fields = match schedule {
        CronSchedule::Fields(fields) => fields,
        CronSchedule::Every(seconds) => {
            let whole = Timestamp::from_second(after.as_second()).ok()?;
            return whole.checked_add(SignedDuration::from_secs(i64::try_from(*seconds).ok()?)).ok();
        }
    };
    let start = zone.to_datetime(after);
    let mut at = start.date().at(start.hour(), start.minute(), 0, 0);
    loop {
        at = next_civil(fields, at, start.year() + HORIZON_YEARS)?;
        let ambiguous = zone.to_ambiguous_timestamp(at);
        if !matches!(ambiguous.offset(), AmbiguousOffset::Gap { .. })
            && let Ok(found) = ambiguous.compatible()
            && found > after
        {
            return Some(found);
        }
    }
}

/// The first match after `at` on the wall clock.
fn next_civil(fields: &Fields, at: DateTime, last_year: i16) -> Option<DateTime> {
    let mut at = at.checked_add(Span::new().minutes(1)).ok()?;
    while at.year() <= last_year {
        let weekday = at.weekday().to_sunday_zero_offset();
        if !fields.matches_day(at.month(), at.day(), weekday) {
            at = at.date().tomorrow().ok()?.at(0, 0, 0, 0);
        } else if !fields.matches_hour(at.hour()) {
            at = at.date().at(at.hour(), 0, 0, 0).checked_add(Span::new().hours(1)).ok()?;
        } else if fields.matches_minute(at.minute()) {
            return Some(at);
        } else {
            at = at.checked_add(Span::new().minutes(1)).ok()?;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(schedule: &str, after: &str, expected: &str) {
        let after: Timestamp = after.parse().unwrap();
        let found = next(&schedule.parse().unwrap(), after, &TimeZone::UTC);
        assert_eq!(found, Some(expected.parse().unwrap()), "{schedule}");
    }

    #[test]
    fn schedules_come_due() {
        check("* * * * *", "2026-01-01T00:00:30Z", "2026-01-01T00:01:00Z");
        check("* * * * *", "2026-01-01T00:01:00Z", "2026-01-01T00:02:00Z");
        check("*/15 * * * *", "2026-01-01T00:46:00Z", "2026-01-01T01:00:00Z");
        check("5/20 3 * * *", "2026-01-01T03:25:00Z", "2026-01-01T03:45:00Z");
        check("0 0 29 2 *", "2026-03-01T00:00:00Z", "2028-02-29T00:00:00Z");
        check("30 4 * * mon-fri", "2026-01-02T05:00:00Z", "2026-01-05T04:30:00Z");
        check("0 0 13 * 5", "2026-02-01T00:00:00Z", "2026-02-06T00:00:00Z");
        check("0 12 1 JAN,jul ?", "2026-01-02T00:00:00Z", "2026-07-01T12:00:00Z");
        check("@hourly", "2026-12-31T23:59:59Z", "2027-01-01T00:00:00Z");
        check("@every 90s", "2026-01-01T00:00:00Z", "2026-01-01T00:01:30Z");
        check("@weekly", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z");
        assert_eq!(next(&"0 0 31 2 *".parse().unwrap(), Timestamp::UNIX_EPOCH, &TimeZone::UTC), None);
    }

    #[test]
    fn times_are_those_of_the_zone() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let next = |schedule: &str, after: &str| {
            next(&schedule.parse().unwrap(), after.parse().unwrap(), &zone).unwrap().to_string()
        };
        assert_eq!(next("0 9 * * *", "2026-01-15T00:00:00Z"), "2026-01-15T08:00:00Z");
        assert_eq!(next("0 9 * * *", "2026-07-15T00:00:00Z"), "2026-07-15T07:00:00Z");
        // 02:30 does not exist on 29 March 2026.
        assert_eq!(next("30 2 * * *", "2026-03-28T12:00:00Z"), "2026-03-30T00:30:00Z");
    }
}
