//! The five fields of a cron schedule, as CronJobs take them, and when it is due.
//!
//! Understood are numbers, names of months and days, `*`, `?`, lists, ranges, steps and the `@` macros.
//! `@every` counts from the last run and is kept apart.

use std::str::FromStr;

/// Which minutes a schedule names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CronSchedule {
    Fields(Box<Fields>),
    /// So many seconds after the last time.
    Every(u64),
}

/// One bit for each value; a day matches by either of two fields when both are restricted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    any_day: bool,
    any_weekday: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    #[error("empty spec string")]
    Empty,
    #[error("expected exactly 5 fields, found {0}: [{1}]")]
    Count(usize, String),
    #[error("failed to parse int from {0}: strconv.Atoi: parsing {quoted}: invalid syntax", quoted = crate::field::quote(.0))]
    Number(String),
    #[error("beginning of range ({0}) below minimum ({1}): {2}")]
    BelowMinimum(u32, u32, String),
    #[error("end of range ({0}) above maximum ({1}): {2}")]
    AboveMaximum(u32, u32, String),
    #[error("beginning of range ({0}) beyond end of range ({1}): {2}")]
    Backwards(u32, u32, String),
    #[error("step of range should be a positive number: {0}")]
    Step(String),
    #[error("too many hyphens: {0}")]
    Hyphens(String),
    #[error("too many slashes: {0}")]
    Slashes(String),
    #[error("unrecognized descriptor: {0}")]
    Descriptor(String),
    #[error("failed to parse duration {0}: time: invalid duration {quoted}", quoted = crate::field::quote(.0))]
    Every(String),
}

struct Bounds {
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const MINUTES: Bounds = Bounds { min: 0, max: 59, names: &[] };
const HOURS: Bounds = Bounds { min: 0, max: 23, names: &[] };
const DAYS: Bounds = Bounds { min: 1, max: 31, names: &[] };
const MONTHS: Bounds = Bounds {
    min: 1,
    max: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const WEEKDAYS: Bounds = Bounds { min: 0, max: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

impl Bounds {
    fn number(&self, text: &str) -> Result<u32, ScheduleError> {
        let lower = text.to_ascii_lowercase();
        if let Some(i) = self.names.iter().position(|n| *n == lower) {
            return Ok(self.min + u32::try_from(i).unwrap_or(0));
        }
        text.parse().map_err(|_| ScheduleError::Number(text.to_owned()))
    }

    /// One list of ranges; the flag says that it was a bare star.
    fn bits(&self, text: &str) -> Result<(u64, bool), ScheduleError> {
        let (mut bits, mut star) = (0, false);
        for part in text.split(',') {
            let (part_bits, part_star) = self.range(part)?;
            bits |= part_bits;
            star |= part_star;
        }
        Ok((bits, star))
    }

    fn range(&self, text: &str) -> Result<(u64, bool), ScheduleError> {
        let mut halves = text.split('/');
        let (range, step) = (halves.next().unwrap_or(""), halves.next());
        if halves.next().is_some() {
            return Err(ScheduleError::Slashes(text.to_owned()));
        }
        let star = range == "*" || range == "?";
        let (low, mut high) = if star {
            (self.min, self.max)
        } else {
            let mut ends = range.split('-');
            let low = self.number(ends.next().unwrap_or(""))?;
            let high = ends.next().map_or(Ok(low), |end| self.number(end))?;
            if ends.next().is_some() {
                return Err(ScheduleError::Hyphens(text.to_owned()));
            }
            (low, high)
        };
        let single = !star && !range.contains('-');
        let stride = match step {
            None => 1,
            Some(step) => {
                if single {
                    high = self.max;
                }
                step.parse().map_err(|_| ScheduleError::Number(step.to_owned()))?
            }
        };
        if low < self.min {
            return Err(ScheduleError::BelowMinimum(low, self.min, text.to_owned()));
        }
        if high > self.max {
            return Err(ScheduleError::AboveMaximum(high, self.max, text.to_owned()));
        }
        if low > high {
            return Err(ScheduleError::Backwards(low, high, text.to_owned()));
        }
        if stride == 0 {
            return Err(ScheduleError::Step(text.to_owned()));
        }
        let bits = (low..=high).step_by(stride).fold(0, |bits, value| bits | 1 << value);
        Ok((bits, star && stride == 1))
    }
}

impl FromStr for CronSchedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(ScheduleError::Empty);
        }
        if let Some(interval) = text.strip_prefix("@every ") {
            let seconds = go_duration(interval).filter(|s| *s > 0);
            return seconds.map(Self::Every).ok_or_else(|| ScheduleError::Every(text.to_owned()));
        }
        let expanded = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other if other.starts_with('@') => return Err(ScheduleError::Descriptor(other.to_owned())),
            other => other,
        };
        let fields: Vec<&str> = expanded.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else {
            return Err(ScheduleError::Count(fields.len(), fields.join(" ")));
        };
        let (days, any_day) = DAYS.bits(days)?;
        let (weekdays, any_weekday) = WEEKDAYS.bits(weekdays)?;
        Ok(Self::Fields(Box::new(Fields {
            minutes: MINUTES.bits(minutes)?.0,
            hours: HOURS.bits(hours)?.0,
            days,
            months: MONTHS.bits(months)?.0,
            weekdays,
            any_day,
            any_weekday,
        })))
    }
}

/// `1h30m` in seconds.
fn go_duration(text: &str) -> Option<u64> {
    let mut total = 0.0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit_len = rest[digits..].find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len() - digits);
        let unit = match &rest[digits..digits + unit_len] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            _ => return None,
        };
        total += number * unit;
        rest = &rest[digits + unit_len..];
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "intervals are whole, small and positive"
    )]
    Some(total as u64)
}

impl Fields {
    #[must_use]
    pub fn matches_minute(&self, minute: i8) -> bool {
        self.minutes & bit(minute) != 0
    }

    #[must_use]
    pub fn matches_hour(&self, hour: i8) -> bool {
        self.hours & bit(hour) != 0
    }

    /// `weekday` counts from Sunday.
    #[must_use]
    pub fn matches_day(&self, month: i8, day: i8, weekday: i8) -> bool {
        let by_day = self.days & bit(day) != 0;
        let by_weekday = self.weekdays & bit(weekday) != 0;
        let day = if self.any_day || self.any_weekday { by_day && by_weekday } else { by_day || by_weekday };
        day && self.months & bit(month) != 0
    }
}

fn bit(value: i8) -> u64 {
    u32::try_from(value).map_or(0, |v| 1 << v.min(63))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_read_and_matched() {
        let CronSchedule::Fields(f) = "*/15 9-17 * * mon-fri".parse().unwrap() else { panic!("fields") };
        assert!(f.matches_minute(30) && !f.matches_minute(31));
        assert!(f.matches_hour(9) && !f.matches_hour(8));
        assert!(f.matches_day(1, 1, 1) && !f.matches_day(1, 1, 0));
        let CronSchedule::Fields(f) = "0 0 13 * 5".parse().unwrap() else { panic!("fields") };
        assert!(f.matches_day(3, 13, 2) && f.matches_day(3, 1, 5) && !f.matches_day(3, 1, 2));
        assert_eq!("@every 1h30m".parse(), Ok(CronSchedule::Every(5400)));
        assert_eq!("@hourly".parse::<CronSchedule>(), "0 * * * *".parse());
    }

    #[test]
    fn malformed_schedules_are_explained() {
        for (text, message) in [
            ("", "empty spec string"),
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
        ] {
            assert_eq!(text.parse::<CronSchedule>().unwrap_err().to_string(), message, "{text}");
        }
    }
}
