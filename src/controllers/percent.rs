//! `maxSurge` and its kin: a count, or a percentage of a total.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Which way a percentage that does not come out even is rounded.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Round {
    Up,
    Down,
}

/// The number meant by `value` out of `total`; a string that is no percentage counts as nothing.
pub(crate) fn scaled(value: &IntOrString, total: i32, round: Round) -> i32 {
    match value {
        IntOrString::Int(n) => *n,
        IntOrString::String(text) => {
            let percent = text.strip_suffix('%').and_then(|p| p.parse::<i64>().ok()).unwrap_or(0);
            let product = i64::from(total) * percent;
            let n = match round {
                Round::Up => (product + 99).div_euclid(100),
                Round::Down => product.div_euclid(100),
            };
            i32::try_from(n).unwrap_or(i32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_as_asked() {
        let quarter = IntOrString::String("25%".into());
        assert_eq!(scaled(&quarter, 3, Round::Up), 1);
        assert_eq!(scaled(&quarter, 3, Round::Down), 0);
        assert_eq!(scaled(&quarter, 10, Round::Up), 3);
        assert_eq!(scaled(&quarter, 8, Round::Up), 2);
        assert_eq!(scaled(&IntOrString::Int(7), 3, Round::Down), 7);
        assert_eq!(scaled(&IntOrString::String("100%".into()), 5, Round::Down), 5);
    }
}
