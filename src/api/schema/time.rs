//! RFC 3339 times as Go's `time.Parse` reads them, with its error texts, and as upstream writes them.

use jiff::Timestamp;
use jiff::civil::DateTime;
use serde_json::{Map, Value};

use super::table::TypeRef;

const RFC3339: &str = "2006-01-02T15:04:05Z07:00";
const RFC3339_MICRO: &str = "2006-01-02T15:04:05.000000Z07:00";

/// How many digits of a second a type keeps.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Precision {
    Seconds,
    Micros,
}

impl Precision {
    fn layout(self) -> &'static str {
        match self {
            Self::Seconds => RFC3339,
            Self::Micros => RFC3339_MICRO,
        }
    }
}

/// Reads a time.
///
/// # Errors
/// With the text of Go's `ParseError`.
pub(crate) fn parse(text: &str, precision: Precision) -> Result<Timestamp, String> {
    let mut reader = Reader { text, rest: text };
    reader.time(precision).map_err(|fault| match fault {
        Fault::Expected { rest, element } => {
            format!("parsing time {text:?} as {:?}: cannot parse {rest:?} as {element:?}", precision.layout())
        }
        Fault::Range(part) => format!("parsing time {text:?}: {part} out of range"),
        Fault::Extra(rest) => {
            format!("parsing time {text:?} as {:?}: extra text: {rest:?}", precision.layout())
        }
    })
}

/// Writes a time in UTC as upstream's types do.
pub(crate) fn format(time: Timestamp, precision: Precision) -> String {
    let civil = jiff::tz::TimeZone::UTC.to_datetime(time);
    let seconds = civil.strftime("%Y-%m-%dT%H:%M:%S");
    match precision {
        Precision::Seconds => format!("{seconds}Z"),
        Precision::Micros => format!("{seconds}.{:06}Z", civil.subsec_nanosecond() / 1_000),
    }
}

/// Go's zero time, which its types write as null.
pub(crate) fn is_zero(time: Timestamp) -> bool {
    const YEAR_ONE: i64 = -62_135_596_800;
    time.as_second() == YEAR_ONE && time.subsec_nanosecond() == 0
}

/// Keeps the time that a condition must have: upstream takes one without it, as zero, but the typed
/// structs of components cannot be without. Go's clients read the zero time back as zero.
pub(crate) fn complete_condition(ty: TypeRef<'_>, object: &mut Map<String, Value>) {
    if ty.name() == "io.k8s.apimachinery.pkg.apis.meta.v1.Condition" {
        object.entry("lastTransitionTime").or_insert_with(|| "0001-01-01T00:00:00Z".into());
    }
}

enum Fault {
    Expected { rest: String, element: &'static str },
    Range(&'static str),
    Extra(String),
}

struct Reader<'a> {
    text: &'a str,
    rest: &'a str,
}

impl Reader<'_> {
    fn time(&mut self, precision: Precision) -> Result<Timestamp, Fault> {
        let year = self.digits(4, "2006")?;
        self.literal("-")?;
        let month = self.digits(2, "01")?;
        in_range(month, 1..=12, "month")?;
        self.literal("-")?;
        let day = self.digits(2, "02")?;
        self.literal("T")?;
        let hour = self.digits(2, "15")?;
        in_range(hour, 0..=23, "hour")?;
        self.literal(":")?;
        let minute = self.digits(2, "04")?;
        in_range(minute, 0..=59, "minute")?;
        self.literal(":")?;
        let second = self.digits(2, "05")?;
        in_range(second, 0..=59, "second")?;
        let nanos = self.fraction(precision)?;
        let offset = self.offset()?;
        if !self.rest.is_empty() {
            return Err(Fault::Extra(self.rest.to_owned()));
        }
        let narrow = |n: i32| i8::try_from(n).map_err(|_| Fault::Range("day"));
        let year = i16::try_from(year).map_err(|_| Fault::Range("year"))?;
        DateTime::new(year, narrow(month)?, narrow(day)?, narrow(hour)?, narrow(minute)?, narrow(second)?, nanos)
            .map_err(|_| Fault::Range("day"))?
            .to_zoned(
                jiff::tz::Offset::from_seconds(offset)
                    .map_err(|_| Fault::Range("time zone offset hour"))?
                    .to_time_zone(),
            )
            .map(|zoned| zoned.timestamp())
            .map_err(|_| Fault::Range("year"))
    }

    fn digits(&mut self, count: usize, element: &'static str) -> Result<i32, Fault> {
        let head = self.rest.get(..count).filter(|h| h.bytes().all(|b| b.is_ascii_digit()));
        let value = head.and_then(|h| h.parse().ok()).ok_or_else(|| self.expected(element))?;
        self.rest = &self.rest[count..];
        Ok(value)
    }

    fn literal(&mut self, literal: &'static str) -> Result<(), Fault> {
        self.rest = self.rest.strip_prefix(literal).ok_or_else(|| self.expected(literal))?;
        Ok(())
    }

    /// Seconds take a fraction of any length though the layout has none; micros need six digits.
    fn fraction(&mut self, precision: Precision) -> Result<i32, Fault> {
        let digits = match self.rest.strip_prefix(['.', ',']) {
            Some(after) => after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len(),
            None => 0,
        };
        if precision == Precision::Micros && digits < 6 {
            return Err(self.expected(".000000"));
        }
        if digits == 0 {
            return Ok(0);
        }
        let used = if precision == Precision::Micros { 6 } else { digits };
        let nanos: String = self.rest[1..=used].chars().chain("000000000".chars()).take(9).collect();
        self.rest = &self.rest[used + 1..];
        Ok(nanos.parse().unwrap_or(0))
    }

    /// Seconds east of UTC.
    fn offset(&mut self) -> Result<i32, Fault> {
        if let Some(rest) = self.rest.strip_prefix('Z') {
            self.rest = rest;
            return Ok(0);
        }
        let whole = *self;
        let expected = |_| whole.expected("Z07:00");
        let sign = match self.rest.as_bytes().first() {
            Some(b'+') => 1,
            Some(b'-') => -1,
            Some(_) | None => return Err(self.expected("Z07:00")),
        };
        self.rest = &self.rest[1..];
        let hours = self.digits(2, "").map_err(expected)?;
        self.literal(":").map_err(expected)?;
        let minutes = self.digits(2, "").map_err(expected)?;
        in_range(hours, 0..=24, "time zone offset hour")?;
        in_range(minutes, 0..=60, "time zone offset minute")?;
        Ok(sign * (hours * 3_600 + minutes * 60))
    }

    fn expected(&self, element: &'static str) -> Fault {
        debug_assert!(self.text.ends_with(self.rest));
        Fault::Expected { rest: self.rest.to_owned(), element }
    }
}

impl Clone for Reader<'_> {
    fn clone(&self) -> Self {
        *self
    }
}

impl Copy for Reader<'_> {}

fn in_range(value: i32, range: std::ops::RangeInclusive<i32>, part: &'static str) -> Result<(), Fault> {
    if range.contains(&value) { Ok(()) } else { Err(Fault::Range(part)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, precision: Precision, expected: &str) {
        let answer = parse(text, precision).map_or_else(|error| error, |time| format(time, precision));
        assert_eq!(answer, expected);
    }

    #[test]
    fn times_are_read_as_go_reads_them_and_written_in_utc() {
        use Precision::{Micros, Seconds};
        check("2024-02-29T23:59:59Z", Seconds, "2024-02-29T23:59:59Z");
        check("2024-01-01T01:30:00.75+02:00", Seconds, "2023-12-31T23:30:00Z");
        check("2024-01-01T00:00:00.123456Z", Micros, "2024-01-01T00:00:00.123456Z");
        check("0001-01-01T00:00:00Z", Seconds, "0001-01-01T00:00:00Z");
        let layout = "\"2006-01-02T15:04:05Z07:00\"";
        check(
            "yesterday",
            Seconds,
            &format!("parsing time \"yesterday\" as {layout}: cannot parse \"yesterday\" as \"2006\""),
        );
        check("2024-01-01", Seconds, &format!("parsing time \"2024-01-01\" as {layout}: cannot parse \"\" as \"T\""));
        check("2024-13-01T00:00:00Z", Seconds, "parsing time \"2024-13-01T00:00:00Z\": month out of range");
        check("2023-02-29T00:00:00Z", Seconds, "parsing time \"2023-02-29T00:00:00Z\": day out of range");
        check(
            "2024-01-01T00:00:00",
            Seconds,
            &format!("parsing time \"2024-01-01T00:00:00\" as {layout}: cannot parse \"\" as \"Z07:00\""),
        );
        check(
            "2024-01-01T00:00:00Zx",
            Seconds,
            &format!("parsing time \"2024-01-01T00:00:00Zx\" as {layout}: extra text: \"x\""),
        );
        check(
            "2024-01-01T00:00:00Z",
            Micros,
            "parsing time \"2024-01-01T00:00:00Z\" as \"2006-01-02T15:04:05.000000Z07:00\": cannot parse \"Z\" as \".000000\"",
        );
    }
}
