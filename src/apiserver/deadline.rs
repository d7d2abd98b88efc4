//! How long a request may take: what `?timeout=` asks for, within the server's own limit.
//!
//! Watches, logs and streams have no deadline. What is given up is not undone: a write may still
//! happen after its client was told that it took too long, as with upstream.

use std::time::Duration;

use crate::error::ApiError;
use crate::request::{RequestInfo, query_pairs};

/// Upstream's default, which is also the most that a client may ask for.
const LONGEST: Duration = Duration::from_secs(60);

/// Answers a request within the time that was allotted to it, if any was.
pub(crate) async fn within<T>(
    allotted: Option<Duration>,
    answer: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    match allotted {
        None => answer.await,
        Some(allotted) => tokio::time::timeout(allotted, answer)
            .await
            .unwrap_or_else(|_| Err(ApiError::Timeout("request did not complete within the allotted timeout".into()))),
    }
}

/// The time for a request; none if it may run on.
///
/// # Errors
/// When what the client asks for is no duration.
pub(crate) fn allotted(info: &RequestInfo, query: Option<&str>) -> Result<Option<Duration>, ApiError> {
    if info.is_long_running() {
        return Ok(None);
    }
    let given = query_pairs(query.unwrap_or("")).find(|(key, value)| key == "timeout" && !value.is_empty());
    let Some((_, given)) = given else { return Ok(Some(LONGEST)) };
    let asked = parse_go_duration(&given)
        .map_err(|why| ApiError::BadRequest(format!("invalid timeout specified in the request URL - {why}")))?;
    // Nothing and less than nothing mean that the client sets no limit.
    Ok(Some(if asked > 0.0 { Duration::from_secs_f64(asked.min(LONGEST.as_secs_f64())) } else { LONGEST }))
}

/// Seconds of a duration in Go's form, such as `1m30s` or `-1.5h`; the error is Go's.
fn parse_go_duration(text: &str) -> Result<f64, String> {
    const UNITS: [(&str, f64); 8] =
        [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("μs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let invalid = || format!("time: invalid duration {text:?}");
    let (sign, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (-1.0, &text[1..]),
        Some(b'+') => (1.0, &text[1..]),
        Some(_) | None => (1.0, text),
    };
    if rest == "0" {
        return Ok(0.0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let is_number = |c: char| c == '.' || c.is_ascii_digit();
        let (number, tail) = rest.split_at(rest.find(|c| !is_number(c)).unwrap_or(rest.len()));
        let (unit, tail) = tail.split_at(tail.find(is_number).unwrap_or(tail.len()));
        let number: f64 = number.parse().map_err(|_| invalid())?;
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {text:?}"));
        }
        let known = UNITS.iter().find(|(name, _)| *name == unit);
        let (_, factor) = known.ok_or_else(|| format!("time: unknown unit {unit:?} in duration {text:?}"))?;
        seconds += number * factor;
        rest = tail;
    }
    Ok(sign * seconds)
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[track_caller]
    fn check(path: &str, query: &str, expected: Result<Option<f64>, &str>) {
        let info = RequestInfo::parse(&Method::GET, path, Some(query));
        let got = allotted(&info, Some(query)).map(|d| d.map(|d| d.as_secs_f64())).map_err(|e| e.to_string());
        assert_eq!(got, expected.map_err(str::to_owned), "{path}?{query}");
    }

    #[test]
    fn a_request_may_take_less_than_the_limit_but_not_more() {
        for (given, expected) in [
            ("", 60.0),
            ("3m", 60.0),
            ("9999999h", 60.0),
            ("0s", 60.0),
            ("0", 60.0),
            ("-5s", 60.0),
            ("32s", 32.0),
            ("1500ms", 1.5),
            ("0.5m1s", 31.0),
            ("%2B10us", 10e-6),
        ] {
            check("/version", &format!("timeout={given}"), Ok(Some(expected)));
        }
        check("/api/v1/pods", "watch=true&timeout=1s", Ok(None));
        check("/api/v1/namespaces/n/pods/p/log", "timeout=1s", Ok(None));
        check("/api/v1/namespaces/n/pods/p/status", "timeout=1s", Ok(Some(1.0)));
    }

    #[test]
    fn what_is_no_duration_is_refused_in_gos_words() {
        for (given, why) in [
            ("invalid", "time: invalid duration \"invalid\""),
            ("5", "time: missing unit in duration \"5\""),
            ("5parsec", "time: unknown unit \"parsec\" in duration \"5parsec\""),
            ("-", "time: invalid duration \"-\""),
            (".s", "time: invalid duration \".s\""),
        ] {
            let message = format!("invalid timeout specified in the request URL - {why}");
            check("/version", &format!("timeout={given}"), Err(&message));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_takes_too_long_is_given_up() {
        let forever = std::future::pending::<Result<(), ApiError>>();
        let error = within(Some(Duration::from_secs(2)), forever).await.unwrap_err();
        assert_eq!(error.to_string(), "Timeout: request did not complete within the allotted timeout");
    }
}
