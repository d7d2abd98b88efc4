//! Cron schedules: five fields, or a macro such as `@daily`; and when they next come due.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};

/// No schedule that ever comes due is silent longer (29 February across a year like 2100).
const HORIZON_YEARS: i16 = 9;

/// Each field is a set of bits; a day matches by both day fields unless both are restricted, then by
/// either.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    minutes: u64,
    hours: u64,
    days: Field,
    months: u64,
    weekdays: Field,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    bits: u64,
    /// Written with `*` or `?`.
    free: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unparseable(String);

impl fmt::Display for Unparseable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

impl Schedule {
    pub(super) fn parse(text: &str) -> Result<Self, Unparseable> {
        let text = text.trim();
        let text = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other if other.starts_with('@') => return Err(Unparseable(format!("unrecognized descriptor: {other}"))),
            other => other,
        };
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(Unparseable(format!("expected exactly 5 fields, found {}: {fields:?}", fields.len())));
        };
        Ok(Self {
            minutes: field(minute, 0, 59, &[])?.bits,
            hours: field(hour, 0, 23, &[])?.bits,
            days: field(day, 1, 31, &[])?,
            months: field(month, 1, 12, &MONTHS)?.bits,
            weekdays: field(weekday, 0, 6, &WEEKDAYS)?,
        })
    }

    /// The first time after `after`; `None` for a date that does not exist. A time that a change of
    /// the clocks leaves out is left out.
    pub(super) fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let start = zone.to_datetime(after);
        let mut at = start.date().at(start.hour(), start.minute(), 0, 0);
        let last_year = start.year() + HORIZON_YEARS;
        loop {
            at = self.next_civil(at, last_year)?;
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
    fn next_civil(&self, at: DateTime, last_year: i16) -> Option<DateTime> {
        let mut at = at.checked_add(jiff::Span::new().minutes(1)).ok()?;
        while at.year() <= last_year {
            if !has(self.months, at.month()) {
                at = at.date().first_of_month().checked_add(jiff::Span::new().months(1)).ok()?.at(0, 0, 0, 0);
            } else if !self.matches_day(at) {
                at = at.date().tomorrow().ok()?.at(0, 0, 0, 0);
            } else if !has(self.hours, at.hour()) {
                at = at.date().at(at.hour(), 0, 0, 0).checked_add(jiff::Span::new().hours(1)).ok()?;
            } else if has(self.minutes, at.minute()) {
                return Some(at);
            } else {
                at = at.checked_add(jiff::Span::new().minutes(1)).ok()?;
            }
        }
        None
    }

    fn matches_day(&self, at: DateTime) -> bool {
        let day = has(self.days.bits, at.day());
        let weekday = has(self.weekdays.bits, at.weekday().to_sunday_zero_offset());
        if self.days.free || self.weekdays.free { day && weekday } else { day || weekday }
    }
}

fn has(bits: u64, at: i8) -> bool {
    bits >> at & 1 == 1
}

fn field(text: &str, min: u32, max: u32, names: &[&str]) -> Result<Field, Unparseable> {
    let mut whole = Field { bits: 0, free: false };
    for part in text.split(',').filter(|p| !p.is_empty()) {
        let one = range(part, min, max, names)?;
        whole.bits |= one.bits;
        whole.free |= one.free;
    }
    if whole.bits == 0 { Err(Unparseable(format!("empty field: {text}"))) } else { Ok(whole) }
}

/// `*`, `5`, `1-5`, each also with `/step`; a lone number with a step runs to the end.
fn range(text: &str, min: u32, max: u32, names: &[&str]) -> Result<Field, Unparseable> {
    let (bounds, step) = match text.split_once('/') {
        Some((bounds, step)) => (bounds, Some(number(step, &[], 0)?)),
        None => (text, None),
    };
    let (first, last, free) = match bounds {
        "*" | "?" => (min, max, true),
        _ => match bounds.split_once('-') {
            Some((first, last)) => (number(first, names, min)?, number(last, names, min)?, false),
            None => {
                let only = number(bounds, names, min)?;
                (only, if step.is_some() { max } else { only }, false)
            }
        },
    };
    if first < min {
        return Err(Unparseable(format!("beginning of range ({first}) below minimum ({min}): {text}")));
    }
    if last > max {
        return Err(Unparseable(format!("end of range ({last}) above maximum ({max}): {text}")));
    }
    if first > last {
        return Err(Unparseable(format!("beginning of range ({first}) beyond end of range ({last}): {text}")));
    }
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(Unparseable(format!("step of range should be a positive number: {text}")));
    }
    let bits = (first..=last).step_by(step as usize).fold(0, |bits, n| bits | 1 << n);
    Ok(Field { bits, free: free && step == 1 })
}

fn number(text: &str, names: &[&str], first: u32) -> Result<u32, Unparseable> {
    let lower = text.to_ascii_lowercase();
    if let Some(at) = names.iter().position(|n| *n == lower) {
        return Ok(first + u32::try_from(at).unwrap_or(0));
    }
    text.parse().map_err(|_| Unparseable(format!("failed to parse int from {text}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(schedule: &str, after: &str, expected: &str) {
        let after: Timestamp = after.parse().unwrap();
        let next = Schedule::parse(schedule).unwrap().next(after, &TimeZone::UTC);
        assert_eq!(next, Some(expected.parse().unwrap()), "{schedule}");
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
        check("@weekly", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z");
        assert_eq!(Schedule::parse("0 0 31 2 *").unwrap().next(Timestamp::UNIX_EPOCH, &TimeZone::UTC), None);
    }

    #[test]
    fn times_are_those_of_the_zone() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let next = |schedule: &str, after: &str| {
            Schedule::parse(schedule).unwrap().next(after.parse().unwrap(), &zone).unwrap().to_string()
        };
        assert_eq!(next("0 9 * * *", "2026-01-15T00:00:00Z"), "2026-01-15T08:00:00Z");
        assert_eq!(next("0 9 * * *", "2026-07-15T00:00:00Z"), "2026-07-15T07:00:00Z");
        // 02:30 does not exist on 29 March 2026.
        assert_eq!(next("30 2 * * *", "2026-03-28T12:00:00Z"), "2026-03-30T00:30:00Z");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "* * * *", "60 * * * *", "* 24 * * *", "5-1 * * * *", "*/0 * * * *", "x * * * *", "@never"] {
            assert!(Schedule::parse(text).is_err(), "{text}");
        }
    }
}
