//! Ages as `kubectl get` prints them: two units at most, fewer the older something is.

use jiff::Timestamp;

/// Upstream's short form of a span of seconds: `59s`, `2m30s`, `5h12m`, `3d4h`, `2y30d`.
#[must_use]
pub fn human_duration(seconds: i64) -> String {
    // One second of slack absorbs clocks that differ a little.
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    if seconds < 0 {
        return "0s".to_owned();
    }
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let (days, years) = (hours / 24, hours / 24 / 365);
    let pair = |big: i64, big_unit: char, small: i64, small_unit: char| match small {
        0 => format!("{big}{big_unit}"),
        _ => format!("{big}{big_unit}{small}{small_unit}"),
    };
    if seconds < 120 {
        format!("{seconds}s")
    } else if minutes < 10 {
        pair(minutes, 'm', seconds % 60, 's')
    } else if minutes < 180 {
        format!("{minutes}m")
    } else if hours < 8 {
        pair(hours, 'h', minutes % 60, 'm')
    } else if hours < 48 {
        format!("{hours}h")
    } else if hours < 24 * 8 {
        pair(days, 'd', hours % 24, 'h')
    } else if hours < 24 * 365 * 2 {
        format!("{days}d")
    } else if hours < 24 * 365 * 8 {
        pair(years, 'y', days % 365, 'd')
    } else {
        format!("{years}y")
    }
}

/// The age of something made at `then`, as of `now`.
#[must_use]
pub fn age(then: Option<Timestamp>, now: Timestamp) -> String {
    then.map_or_else(|| "<unknown>".to_owned(), |then| human_duration(whole_seconds(then, now)))
}

/// Seconds from `then` to `now`, cut towards zero.
#[must_use]
pub fn whole_seconds(then: Timestamp, now: Timestamp) -> i64 {
    now.duration_since(then).as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_shrink_to_two_units() {
        for (seconds, expected) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (150, "2m30s"),
            (599, "9m59s"),
            (600, "10m"),
            (179 * 60, "179m"),
            (180 * 60, "3h"),
            (5 * 3600 + 720, "5h12m"),
            (8 * 3600 + 720, "8h"),
            (48 * 3600, "2d"),
            (76 * 3600, "3d4h"),
            (8 * 24 * 3600 + 3600, "8d"),
            (365 * 24 * 3600, "365d"),
            (2 * 365 * 24 * 3600, "2y"),
            ((2 * 365 + 30) * 24 * 3600, "2y30d"),
            (9 * 365 * 24 * 3600, "9y"),
        ] {
            assert_eq!(human_duration(seconds), expected, "{seconds}");
        }
    }
}
