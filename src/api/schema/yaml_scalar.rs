//! What a plain YAML scalar means, by the rules of go-yaml's second version, which upstream reads
//! request bodies with: YAML 1.1's words for booleans, octal numbers with a leading zero, underscores in
//! numbers. Times stay text.

use std::borrow::Cow;

use serde_json::{Number, Value};

/// The value of a plain scalar without a tag.
pub(super) fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => return true.into(),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => return false.into(),
        _ => {}
    }
    let number = match text.as_bytes()[0] {
        b'+' | b'-' | b'0'..=b'9' | b'.' => number(text),
        _ => None,
    };
    number.map_or_else(|| text.into(), Value::Number)
}

fn number(text: &str) -> Option<Number> {
    let plain: Cow<'_, str> = if text.contains('_') { text.replace('_', "").into() } else { text.into() };
    // Go reads a text that starts with a point as a float only, with its underscores.
    if !text.starts_with('.')
        && let Some(integer) = integer(&plain)
    {
        return Some(integer);
    }
    float(&plain)
}

/// An integer in Go's base 0: decimal, `0x`, `0o`, `0b`, or octal after a leading zero.
fn integer(text: &str) -> Option<Number> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    // `from_str_radix` would take a second sign.
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    if negative { 0_i64.checked_sub_unsigned(magnitude).map(Number::from) } else { Some(magnitude.into()) }
}

/// A float in decimal notation; whole ones are integers in the JSON that Go makes of them.
fn float(text: &str) -> Option<Number> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let has_exponent = exponent.is_none_or(|e| !e.is_empty() && digits(e));
    if !digits(whole) || !digits(fraction) || whole.len() + fraction.len() == 0 || !has_exponent {
        return None;
    }
    let value: f64 = text.parse().ok()?;
    if value.fract() == 0.0 && value.abs() < EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
        return Some((value as i64).into());
    }
    Number::from_f64(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plain_scalars_are_read_as_go_yaml_reads_them() {
        for (text, expected) in [
            ("", json!(null)),
            ("~", json!(null)),
            ("NULL", json!(null)),
            ("nUll", json!("nUll")),
            ("yes", json!(true)),
            ("On", json!(true)),
            ("n", json!(false)),
            ("off", json!(false)),
            ("oN", json!("oN")),
            ("12", json!(12)),
            ("-12", json!(-12)),
            ("+12", json!(12)),
            ("1_000", json!(1000)),
            ("0x1F", json!(31)),
            ("0b101", json!(5)),
            ("0o17", json!(15)),
            ("017", json!(15)),
            ("08", json!(8)),
            ("09.5", json!(9.5)),
            ("--1", json!("--1")),
            ("+-1", json!("+-1")),
            ("-9223372036854775808", json!(i64::MIN)),
            ("18446744073709551615", json!(u64::MAX)),
            ("1.5", json!(1.5)),
            ("2.0", json!(2)),
            (".5", json!(0.5)),
            ("1.", json!(1)),
            ("1e3", json!(1000)),
            ("1e400", json!("1e400")),
            ("-.e1", json!("-.e1")),
            (".", json!(".")),
            ("...", json!("...")),
            ("1.2.3", json!("1.2.3")),
            ("1e", json!("1e")),
            ("100m", json!("100m")),
            ("10.0.0.1", json!("10.0.0.1")),
            ("2026-01-01", json!("2026-01-01")),
            ("2026-01-01T00:00:00Z", json!("2026-01-01T00:00:00Z")),
            (".inf", json!(".inf")),
            ("text", json!("text")),
        ] {
            assert_eq!(resolve(text), expected, "{text:?}");
        }
    }
}
