//! Certificates of a server that runs for years: issued anew before they end, and shown from the next
//! handshake on. Nothing is started anew for them.
//!
//! A board without a clock of its own boots in 1970 and gets the time from the network later: then its
//! certificates may be about to end, or have ended, from one second to the next. So both clocks are
//! compared, and when the one that tells the date was set, the certificates are looked at.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use apiserver::ApiServer;
use jiff::Timestamp;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::apiserver_config::kubelet_identity;
use super::tls::Certificates;
use super::{open_pki, write_kubeconfig};
use crate::config::ServerConfig;
use crate::datadir::Start;

/// Of the ninety days before a certificate's end in which it is renewed, each has two tries.
const LOOK_EVERY: Duration = Duration::from_secs(12 * 60 * 60);
/// How often the clocks are compared: so long at the most are ended certificates shown.
const COMPARE_EVERY: Duration = Duration::from_secs(30);
/// Clocks drift apart by seconds in twelve hours. More means that one was set.
const STEP: Duration = Duration::from_secs(60);

/// Renews what is about to end, until cancelled.
pub(super) async fn keep(
    config: ServerConfig,
    certificates: Arc<Certificates>,
    server: Arc<ApiServer>,
    token: CancellationToken,
) {
    let renewals = whenever_due(Timestamp::now, |now| {
        let (config, certificates, server) = (config.clone(), certificates.clone(), server.clone());
        async move {
            match tokio::task::spawn_blocking(move || renew(&config, &certificates, &server, now)).await {
                Ok(Ok(())) => {}
                Ok(Err(e)) => warn!("certificates could not be renewed: {e:#}"),
                Err(e) => warn!("certificates could not be renewed: {e}"),
            }
        }
    });
    token.run_until_cancelled(renewals).await;
}

/// What both clocks show.
#[derive(Clone, Copy, Debug)]
struct Reading {
    /// By the clock that nobody sets.
    at: Instant,
    time: Timestamp,
}

impl Reading {
    /// Whether so much time has passed since, or the clock was set so far, that certificates may end.
    fn is_due(self, now: Self) -> bool {
        let passed = now.at.saturating_duration_since(self.at);
        let shown = now.time.as_second() - self.time.as_second();
        passed >= LOOK_EVERY || i128::from(shown).abs_diff(i128::from(passed.as_secs())) > u128::from(STEP.as_secs())
    }
}

/// Calls `renew` with the time, for ever.
async fn whenever_due<F: Future<Output = ()>>(clock: impl Fn() -> Timestamp, mut renew: impl FnMut(Timestamp) -> F) {
    let read = || Reading { at: Instant::now(), time: clock() };
    let mut last = read();
    loop {
        sleep(COMPARE_EVERY).await;
        let now = read();
        if last.is_due(now) {
            last = now;
            renew(now.time).await;
        }
    }
}

fn renew(config: &ServerConfig, certificates: &Certificates, server: &ApiServer, now: Timestamp) -> anyhow::Result<()> {
    let pki = open_pki(config, Start::Later, now)?;
    certificates.exchange(&pki)?;
    server.renew_kubelet_client(&kubelet_identity(&pki)).context("the API server's certificate for kubelets")?;
    write_kubeconfig(config, &pki).context("the administrator's kubeconfig")
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::super::fixtures;
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn certificates_are_looked_at_twice_a_day_and_when_the_clock_was_set() {
        let last = Reading { at: Instant::now(), time: time("2026-06-01T00:00:00Z") };
        let check = |passed: u64, shown: &str, expected: bool| {
            let now = Reading { at: last.at + Duration::from_secs(passed), time: time(shown) };
            assert_eq!(last.is_due(now), expected, "{passed} s later at {shown}");
        };
        check(30, "2026-06-01T00:00:30Z", false);
        check(30, "2026-06-01T00:00:31Z", false);
        check(30, "2026-06-01T00:01:31Z", true);
        check(30, "2026-05-31T23:59:29Z", true);
        check(30, "1970-01-01T00:00:00Z", true);
        check(43_199, "2026-06-01T11:59:58Z", false);
        check(43_200, "2026-06-01T12:00:00Z", true);
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_from_1970_is_seen_within_a_minute() {
        let begin = Instant::now();
        let set_after = Duration::from_secs(600);
        let clock = || {
            let base = if begin.elapsed() < set_after { "1970-01-01T00:00:10Z" } else { "2027-06-01T00:00:00Z" };
            time(base) + begin.elapsed()
        };
        let looks = RefCell::new(Vec::new());
        let renewals = whenever_due(clock, |now| {
            looks.borrow_mut().push((begin.elapsed(), now));
            async {}
        });
        assert!(tokio::time::timeout(Duration::from_secs(13 * 60 * 60), renewals).await.is_err());
        let looks = looks.into_inner();
        assert_eq!(looks.len(), 2, "{looks:?}");
        assert!(looks[0].0 <= set_after + Duration::from_secs(60), "{looks:?}");
        assert!(looks[0].1 > time("2027-06-01T00:00:00Z"), "{looks:?}");
        assert!(looks[1].0 - looks[0].0 >= LOOK_EVERY, "{looks:?}");
    }

    #[tokio::test]
    async fn what_was_issued_in_1970_is_renewed_without_a_start() {
        let directory = tempfile::tempdir().unwrap();
        let config = fixtures::config(directory.path());
        let pki = open_pki(&config, Start::First, time("1970-01-01T00:00:10Z")).unwrap();
        let certificates = Certificates::new(&pki).unwrap();
        let server = fixtures::server(&config, &pki).await;
        let client = || std::fs::read(directory.path().join("server/tls/kube-apiserver-kubelet-client.crt")).unwrap();
        let kubeconfig = || std::fs::read_to_string(&config.write_kubeconfig).unwrap();

        renew(&config, &certificates, &server, time("2026-06-01T00:00:00Z")).unwrap();
        let before = (certificates.leaves(), client(), kubeconfig());
        renew(&config, &certificates, &server, time("2026-06-02T00:00:00Z")).unwrap();
        assert_eq!((certificates.leaves(), client(), kubeconfig()), before, "they have long to go");
        renew(&config, &certificates, &server, time("2027-06-01T00:00:00Z")).unwrap();
        let after = (certificates.leaves(), client(), kubeconfig());
        assert!(after.0[0] != before.0[0] && after.0[1] != before.0[1], "the servers'");
        assert!(after.1 != before.1 && after.2 != before.2, "the clients'");
        server.close().await.unwrap();
    }
}
