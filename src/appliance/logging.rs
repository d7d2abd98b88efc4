//! Where the process's own log lines go: standard error, which systemd and containers collect.

use tracing_subscriber::EnvFilter;

/// What is shown unless `--log-level` says otherwise.
pub(crate) const DEFAULT_LEVEL: &str = "info";

/// Libraries that read what comes from the network: their warnings are about whoever sent it, who could fill the log
/// with them. What matters of it our own components say.
const AT_A_STRANGERS_WILL: [&str; 14] = [
    "h2",
    "hyper",
    "hyper_util",
    "rustls",
    "tokio_rustls",
    "axum",
    "tower",
    "tower_http",
    "reqwest",
    "oci_client",
    "hickory_net",
    "hickory_proto",
    "hickory_resolver",
    "hickory_server",
];

/// Libraries whose chatter is left out, but not their warnings.
const CHATTY: [&str; 2] = ["libcontainer", "libcgroups"];

/// Installs the subscriber.
///
/// # Errors
/// When the level is not a filter that `tracing` knows.
pub(crate) fn install(level: &str) -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_env_filter(filter(level)?).with_writer(std::io::stderr).with_ansi(false).init();
    Ok(())
}

/// A library that the level names itself is shown as it says.
fn filter(level: &str) -> anyhow::Result<EnvFilter> {
    let strangers = AT_A_STRANGERS_WILL.iter().map(|library| format!("{library}=off,"));
    let chatty = CHATTY.iter().map(|library| format!("{library}=warn,"));
    let quiet: String = strangers.chain(chatty).collect();
    EnvFilter::try_new(format!("{quiet}{level}")).map_err(|e| anyhow::anyhow!("invalid --log-level {level:?}: {e}"))
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[track_caller]
    fn check(level: &str, expected: &[&str]) {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter(level).unwrap())
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .without_time()
            .with_level(false)
            .with_target(false)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(target: "h2::proto::streams::streams", "reset");
            tracing::error!(target: "rustls::common_state", "alert");
            tracing::warn!(target: "hickory_server::server", "request");
            tracing::info!(target: "libcontainer::process", "chatter");
            tracing::warn!(target: "libcontainer::process", "cgroup");
            tracing::info!(target: "apiserver::listener", "ours");
            tracing::debug!(target: "apiserver::listener", "detail");
        });
        let text = String::from_utf8(log.0.lock().clone()).unwrap();
        assert_eq!(text.lines().map(str::trim).collect::<Vec<_>>(), expected, "{level}");
    }

    #[test]
    fn strangers_write_nothing_into_the_log_unless_it_is_asked_for() {
        check(DEFAULT_LEVEL, &["cgroup", "ours"]);
        check("debug", &["cgroup", "ours", "detail"]);
        check("info,h2=warn", &["reset", "cgroup", "ours"]);
        assert!(filter("x=y=z").is_err());
    }
}
