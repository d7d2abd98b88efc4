//! The kubelet's verdict over a pod, such as `Evicted`: it is noted before the pod is ended, so that the kubelet
//! that sees the end tells it, also when that is another one.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tracing::warn;

use crate::kubelet::Kubelet;
use crate::status::Verdict;

/// A node that is busy reading its disk does not keep a pod from its end, nor from its start.
const DEADLINE: Duration = Duration::from_secs(2);

/// As it rests: fields are added with a default only.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Sentence {
    verdict: Verdict,
    grace_seconds: i64,
}

/// Notes verdict and grace period.
pub(super) async fn note(kubelet: &Kubelet, uid: &str, (verdict, grace_seconds): (Verdict, i64)) {
    let sentence = Sentence { verdict, grace_seconds };
    let words = serde_json::to_string(&sentence).expect("invariant: a verdict is plain data");
    let why = match timeout(DEADLINE, kubelet.runtime.note_verdict(uid, words)).await {
        Ok(Ok(())) => return,
        Ok(Err(e)) => e.to_string(),
        Err(_) => "it takes too long".to_owned(),
    };
    warn!(uid, "why the pod ends is not noted, and would be lost with this process: {why}");
}

/// What was noted by a kubelet before this one.
pub(super) async fn recall(kubelet: &Kubelet, uid: &str) -> Option<(Verdict, i64)> {
    let why = match timeout(DEADLINE, kubelet.runtime.verdict(uid)).await {
        Ok(Ok(words)) => return words.as_deref().and_then(|words| parse(uid, words)),
        Ok(Err(e)) => e.to_string(),
        Err(_) => "it takes too long".to_owned(),
    };
    warn!(uid, "it is not known whether the pod was to end: {why}");
    None
}

fn parse(uid: &str, words: &str) -> Option<(Verdict, i64)> {
    let sentence = serde_json::from_str::<Sentence>(words);
    let sentence = sentence.inspect_err(|e| warn!(uid, "it is not known why the pod was to end: {e}")).ok()?;
    Some((sentence.verdict, sentence.grace_seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_today_is_read_tomorrow() {
        let words = r#"{"verdict":{"reason":"Evicted","message":"low","disruption":true},"grace_seconds":0}"#;
        let verdict = Verdict { reason: "Evicted".to_owned(), message: "low".to_owned(), disruption: true };
        assert_eq!(parse("u", words), Some((verdict.clone(), 0)));
        assert_eq!(serde_json::to_string(&Sentence { verdict, grace_seconds: 0 }).unwrap(), words);
        assert_eq!(parse("u", "{}"), None);
    }
}
