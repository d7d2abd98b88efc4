//! Completion indexes of an Indexed Job, and their text form such as `1,3-5,7`.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use crate::pods::PodView;

pub(super) const ANNOTATION: &str = "batch.kubernetes.io/job-completion-index";

/// Reads the text form; indexes from `completions` on are left out, for the Job may have shrunk.
pub(super) fn parse(text: &str, completions: i32) -> BTreeSet<i32> {
    intervals(text, completions).flatten().collect()
}

fn intervals(text: &str, completions: i32) -> impl Iterator<Item = RangeInclusive<i32>> {
    text.split(',').filter_map(move |part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let interval = first.parse::<i32>().ok()?..=last.parse::<i32>().ok()?.min(completions.saturating_sub(1));
        (!interval.is_empty()).then_some(interval)
    })
}

/// How many indexes a text names, and how many of them are among `done`. The text is the user's: few letters may
/// name two billion, which are not put into a list.
pub(super) fn named_and_done(text: &str, completions: i32, done: &BTreeSet<i32>) -> (usize, usize) {
    let mut parts: Vec<_> = intervals(text, completions).collect();
    parts.sort_by_key(|part| *part.start());
    let (mut named, mut matched, mut from) = (0, 0, i32::MIN);
    for part in parts {
        let (first, last) = ((*part.start()).max(from), *part.end());
        if first <= last {
            named += usize::try_from(i64::from(last) - i64::from(first) + 1).unwrap_or(usize::MAX);
            matched += done.range(first..=last).count();
            from = last.saturating_add(1);
        }
    }
    (named, matched)
}

/// Three and more in a row are written as an interval, two as two numbers.
pub(super) fn format(indexes: &BTreeSet<i32>) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut rest = indexes.iter().copied().peekable();
    while let Some(first) = rest.next() {
        let mut last = first;
        while let Some(next) = rest.next_if_eq(&(last + 1)) {
            last = next;
        }
        match last - first {
            0 => parts.push(first.to_string()),
            1 => parts.push(format!("{first},{last}")),
            _ => parts.push(format!("{first}-{last}")),
        }
    }
    parts.join(",")
}

/// The index that a pod stands for.
pub(super) fn of(pod: &PodView) -> Option<i32> {
    pod.meta.annotations.get(ANNOTATION)?.parse().ok()
}

/// The lowest `count` indexes that are neither done nor being worked on.
pub(super) fn first_free(taken: &BTreeSet<i32>, completions: i32, count: usize) -> Vec<i32> {
    (0..completions).filter(|i| !taken.contains(i)).take(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_written_from_three_on() {
        for (text, indexes) in [("", vec![]), ("2", vec![2]), ("0,1", vec![0, 1]), ("1,3-5,7", vec![1, 3, 4, 5, 7])] {
            let set: BTreeSet<i32> = indexes.into_iter().collect();
            assert_eq!(format(&set), text);
            assert_eq!(parse(text, 10), set);
        }
        assert_eq!(parse("1,3-5,7", 5), BTreeSet::from([1, 3, 4]));
    }

    #[test]
    fn indexes_of_a_rule_are_counted_without_a_list() {
        let done = BTreeSet::from([0, 4, 9]);
        assert_eq!(named_and_done("0-2147483646", i32::MAX, &done), (2_147_483_647, 3));
        assert_eq!(named_and_done("3-5,0,4-6,x,7-6", 10, &done), (5, 2));
        assert_eq!(named_and_done("5-20", 8, &done), (3, 0));
    }

    #[test]
    fn the_lowest_free_indexes_come_first() {
        assert_eq!(first_free(&BTreeSet::from([0, 2]), 6, 2), [1, 3]);
        assert_eq!(first_free(&BTreeSet::from([0, 1]), 3, 5), [2]);
    }
}
