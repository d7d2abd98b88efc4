//! Amounts such as `500m`, `1.5Gi` or `2e3`: parsing, arithmetic and upstream's canonical form.
//!
//! A value is held exactly, in billionths; finer input is rounded up and larger input capped at
//! 2^63-1, which is what upstream documents. The notation that the text used is remembered, because
//! the canonical form keeps it.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Wire;

const NANO: i128 = 1_000_000_000;
const LIMIT: i128 = i64::MAX as i128 * NANO;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Notation {
    Decimal,
    Binary,
    Exponent,
}

/// An amount in the notation it was written in.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    notation: Notation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse numeric part of quantity")]
    Number,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl Quantity {
    pub const ZERO: Self = Self { nanos: 0, notation: Notation::Decimal };

    #[must_use]
    pub fn from_int(value: i64) -> Self {
        Self { nanos: i128::from(value) * NANO, notation: Notation::Decimal }
    }

    #[must_use]
    pub fn from_milli(milli: i64) -> Self {
        Self { nanos: i128::from(milli) * (NANO / 1000), notation: Notation::Decimal }
    }

    /// So many bytes, printed with `Ki`, `Mi`, ….
    #[must_use]
    pub fn from_bytes(bytes: i64) -> Self {
        Self { nanos: i128::from(bytes) * NANO, notation: Notation::Binary }
    }

    /// The whole number at or above this amount.
    #[must_use]
    pub fn value(&self) -> i64 {
        scaled_up(self.nanos, NANO)
    }

    /// Thousandths, rounded up.
    #[must_use]
    pub fn milli_value(&self) -> i64 {
        scaled_up(self.nanos, NANO / 1000)
    }

    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// -1, 0 or 1.
    #[must_use]
    pub fn sign(&self) -> i32 {
        match self.nanos.cmp(&0) {
            Ordering::Less => -1,
            Ordering::Equal => 0,
            Ordering::Greater => 1,
        }
    }

    /// Whether nothing is lost by [`Quantity::value`].
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.nanos % NANO == 0
    }

    /// The sum, in this amount's notation unless it is zero.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let notation = if self.nanos == 0 { other.notation } else { self.notation };
        Self { nanos: capped(self.nanos + other.nanos), notation }
    }

    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        let notation = if self.nanos == 0 { other.notation } else { self.notation };
        Self { nanos: capped(self.nanos - other.nanos), notation }
    }

    /// This amount in thousandths at the finest, rounded away from zero.
    #[must_use]
    pub fn rounded_to_milli(self) -> Self {
        let unit = NANO / 1000;
        let magnitude = self.nanos.abs();
        let rounded = (magnitude + unit - 1) / unit * unit;
        Self { nanos: if self.nanos < 0 { -rounded } else { rounded }, ..self }
    }

    /// The wire form.
    #[must_use]
    pub fn to_wire(&self) -> Wire {
        Wire(self.to_string())
    }

    /// Reads a wire value that was validated before; text that is none counts as zero.
    #[must_use]
    pub fn of(wire: &Wire) -> Self {
        wire.0.parse().unwrap_or(Self::ZERO)
    }
}

fn capped(nanos: i128) -> i128 {
    nanos.clamp(-LIMIT, LIMIT)
}

fn scaled_up(nanos: i128, unit: i128) -> i64 {
    let whole = nanos.div_euclid(unit) + i128::from(nanos.rem_euclid(unit) != 0);
    i64::try_from(whole).unwrap_or(if whole < 0 { i64::MIN } else { i64::MAX })
}

/// Rewrites a wire quantity in canonical form, in place.
///
/// # Errors
/// When the text is no quantity.
pub fn canonicalize(wire: &mut Wire) -> Result<(), ParseError> {
    let canonical = wire.0.parse::<Quantity>()?.to_string();
    if canonical != wire.0 {
        wire.0 = canonical;
    }
    Ok(())
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

enum Scale {
    Ten(i32),
    Two(u32),
}

fn suffix(text: &str) -> Result<(Scale, Notation), ParseError> {
    let scale = match text {
        "n" => Scale::Ten(-9),
        "u" => Scale::Ten(-6),
        "m" => Scale::Ten(-3),
        "" => Scale::Ten(0),
        "k" => Scale::Ten(3),
        "M" => Scale::Ten(6),
        "G" => Scale::Ten(9),
        "T" => Scale::Ten(12),
        "P" => Scale::Ten(15),
        "E" => Scale::Ten(18),
        "Ki" => Scale::Two(10),
        "Mi" => Scale::Two(20),
        "Gi" => Scale::Two(30),
        "Ti" => Scale::Two(40),
        "Pi" => Scale::Two(50),
        "Ei" => Scale::Two(60),
        _ => {
            let exponent = text.strip_prefix(['e', 'E']).ok_or(ParseError::Suffix)?;
            let exponent: i32 = exponent.parse().map_err(|_| ParseError::Suffix)?;
            return Ok((Scale::Ten(exponent), Notation::Exponent));
        }
    };
    let notation = if matches!(scale, Scale::Two(_)) { Notation::Binary } else { Notation::Decimal };
    Ok((scale, notation))
}

/// `digits` (with `fraction` of them behind the point) times the scale, in billionths, rounded away
/// from zero and capped.
fn scaled(digits: &str, fraction: usize, scale: &Scale) -> Result<i128, ParseError> {
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Ok(0);
    }
    let fraction = i32::try_from(fraction).map_err(|_| ParseError::Number)?;
    let (power, shift) = match *scale {
        Scale::Ten(power) => (power.saturating_sub(fraction).saturating_add(9), 0),
        Scale::Two(shift) => (9 - fraction, shift),
    };
    // More than 30 significant digits never change the rounded result of an amount within the cap.
    let kept = &digits[..digits.len().min(30)];
    let dropped = i32::try_from(digits.len() - kept.len()).map_err(|_| ParseError::Number)?;
    let power = power.saturating_add(dropped);
    let mantissa: i128 = kept.parse().map_err(|_| ParseError::Number)?;
    let mantissa = mantissa.checked_mul(1_i128 << shift.min(20)).unwrap_or(LIMIT);
    let mantissa = mantissa.checked_mul(1_i128 << shift.saturating_sub(20)).unwrap_or(i128::MAX / 2);
    if power >= 0 {
        let factor = u32::try_from(power).ok().and_then(|p| 10_i128.checked_pow(p));
        return Ok(factor.and_then(|f| mantissa.checked_mul(f)).map_or(LIMIT, |v| v.min(LIMIT)));
    }
    let divisor = u32::try_from(-power).ok().and_then(|p| 10_i128.checked_pow(p));
    Ok(divisor.map_or(1, |d| mantissa / d + i128::from(mantissa % d != 0)).min(LIMIT))
}

impl FromStr for Quantity {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (negative, rest) = match text.as_bytes().first() {
            None => return Err(ParseError::Format),
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) => (false, text),
        };
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(number_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(ParseError::Format);
        }
        if tail.bytes().any(|b| !b"eEinumkKMGTP+-0123456789".contains(&b)) {
            return Err(ParseError::Format);
        }
        let (scale, notation) = suffix(tail)?;
        let digits = format!("{whole}{fraction}");
        let nanos = scaled(&digits, fraction.len(), &scale)?;
        Ok(Self { nanos: if negative { -nanos } else { nanos }, notation })
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let binary = self.notation == Notation::Binary && self.nanos.abs() >= 1024 * NANO && self.is_whole();
        if binary {
            let mut number = self.nanos / NANO;
            let mut step = 0;
            while number % 1024 == 0 && step < 6 {
                number /= 1024;
                step += 1;
            }
            return write!(f, "{number}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][step]);
        }
        let mut number = self.nanos;
        let (mut step, mut exponent) = (0, -9);
        while number % 1000 == 0 && step < 9 {
            number /= 1000;
            step += 1;
            exponent += 3;
        }
        if self.notation == Notation::Exponent {
            return if exponent == 0 { write!(f, "{number}") } else { write!(f, "{number}e{exponent}") };
        }
        write!(f, "{number}{}", ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][step])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(input: &str, canonical: &str, milli: i64) {
        let quantity: Quantity = input.parse().unwrap();
        assert_eq!(quantity.to_string(), canonical, "{input}");
        assert_eq!(quantity.milli_value(), milli, "{input}");
    }

    #[test]
    fn quantities_take_their_canonical_form() {
        check("0.5", "500m", 500);
        check("1024Mi", "1Gi", 1_073_741_824_000);
        check("1.5Gi", "1536Mi", 1_610_612_736_000);
        check("1000", "1k", 1_000_000);
        check("100000m", "100", 100_000);
        check("0.1Mi", "104857600m", 104_857_600);
        check("0.1m", "100u", 1);
        check("1e3", "1e3", 1_000_000);
        check("128Mi", "128Mi", 134_217_728_000);
        check("-1.5", "-1500m", -1500);
        check("0Mi", "0", 0);
        check("512", "512", 512_000);
        check("0.5Ki", "512", 512_000);
        check(".5", "500m", 500);
        check("5.", "5", 5000);
        check("1E", "1E", i64::MAX);
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for (text, error) in [
            ("", ParseError::Format),
            ("abc", ParseError::Format),
            ("1.2.3", ParseError::Format),
            ("1Qi", ParseError::Format),
            ("1mm", ParseError::Suffix),
            ("1iK", ParseError::Suffix),
            ("1e", ParseError::Suffix),
        ] {
            assert_eq!(text.parse::<Quantity>().unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn amounts_compare_and_add_across_notations() {
        let gi: Quantity = "1Gi".parse().unwrap();
        let mi: Quantity = "1024Mi".parse().unwrap();
        assert_eq!(gi, mi);
        assert_eq!(gi.plus(mi).to_string(), "2Gi");
        assert_eq!(gi.minus(mi).to_string(), "0");
        let half: Quantity = "500m".parse().unwrap();
        assert_eq!(half.plus(half).to_string(), "1");
        assert_eq!(half.value(), 1);
        assert!(half < Quantity::from_int(1));
    }
}
