//! Named numbers, and what stands for many of them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub(crate) struct Figures(BTreeMap<String, f64>);

impl Figures {
    pub(crate) fn set(&mut self, name: &str, value: f64) {
        self.0.insert(name.to_owned(), value);
    }

    /// Sets `NAME_p50_ms`, `NAME_p99_ms` and `NAME_max_ms`; nothing without a sample.
    pub(crate) fn set_times(&mut self, name: &str, times: &mut [Duration]) {
        times.sort_unstable();
        for (suffix, share) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
            if let Some(time) = percentile(times, share) {
                self.set(&format!("{name}_{suffix}_ms"), milliseconds(time));
            }
        }
    }

    /// Each figure's median over the repeats of one test.
    pub(crate) fn median(repeats: &[Self]) -> Self {
        let mut values: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for (name, value) in repeats.iter().flat_map(|r| &r.0) {
            values.entry(name.clone()).or_default().push(*value);
        }
        let middle = |(name, mut values): (String, Vec<f64>)| {
            values.sort_by(f64::total_cmp);
            (name, values[values.len() / 2])
        };
        Self(values.into_iter().map(middle).collect())
    }
}

pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The smallest value that at least this share of the sorted values do not exceed.
fn percentile(sorted: &[Duration], share: f64) -> Option<Duration> {
    let rank = sorted.len() as f64 * share;
    let below = (1..=sorted.len()).find(|n| *n as f64 >= rank)?;
    sorted.get(below - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        let rows = [
            (&times[..], 0.5, Some(100)),
            (&times, 0.99, Some(198)),
            (&times, 1.0, Some(200)),
            (&times[..1], 0.5, Some(1)),
            (&[], 0.5, None),
        ];
        for (times, share, expected) in rows {
            assert_eq!(percentile(times, share), expected.map(Duration::from_millis), "{share} of {}", times.len());
        }
    }

    #[test]
    fn the_median_is_taken_figure_by_figure() {
        let repeat = |a, b| Figures([("a".to_owned(), a), ("b".to_owned(), b)].into());
        let repeats = [repeat(1.0, 30.0), repeat(3.0, 10.0), repeat(2.0, 20.0)];
        assert_eq!(Figures::median(&repeats), repeat(2.0, 20.0));
    }
}
