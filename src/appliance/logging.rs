//! Where the process's own log lines go: standard error, which systemd and containers collect.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// What is shown unless `--log-level` says otherwise.
pub(crate) const DEFAULT_LEVEL: &str = "info";

/// Libraries that read what comes from the network: their warnings are about whoever sent it, who could fill the log
/// with them. What matters of it our own components say.
const AT_A_STRANGERS_WILL: [&str; 13] = [
    "h2",
    "hyper",
    "hyper_util",
    "rustls",
    "tokio_rustls",
    "axum",
    "tower",
    "tower_http",
    "reqwest",
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
/// When the level is neither one nor a filter that `tracing` knows.
pub(crate) fn install(level: &str) -> anyhow::Result<()> {
    let filter = filter(level)?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    Ok(())
}

/// A library that the level names itself is shown as it says. A word that is no level would be the name of a part of
/// the program, and all others silent.
fn filter(level: &str) -> anyhow::Result<EnvFilter> {
    for directive in level.split(',') {
        let named = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
        if named.trim().is_empty() || named.trim().parse::<LevelFilter>().is_err() {
            anyhow::bail!(
                "invalid --log-level {level:?}: {named:?} is none of error, warn, info, debug, trace and off; \
                 PART=LEVEL sets that of one part of the program"
            );
        }
    }
    let strangers = AT_A_STRANGERS_WILL.iter().map(|library| format!("{library}=off,"));
    let chatty = CHATTY.iter().map(|library| format!("{library}=warn,"));
    let quiet: String = strangers.chain(chatty).collect();
    EnvFilter::try_new(format!("{DEFAULT_LEVEL},{quiet}{level}"))
        .map_err(|e| anyhow::anyhow!("invalid --log-level {level:?}: {e}"))
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

    #[test]
    fn an_unknown_level_is_refused() {
        for known in ["info", "DEBUG", "off", "kubelet=debug", "warn,kubelet=trace"] {
            assert!(filter(known).is_ok(), "{known}");
        }
        for unknown in ["blah", "", "kubelet", "info,blah", "kubelet=loud", "verbose"] {
            let error = filter(unknown).map(drop).unwrap_err().to_string();
            assert!(error.contains("error, warn, info, debug, trace and off"), "{error}");
        }
    }

    #[test]
    fn the_level_of_one_part_leaves_the_others_as_they_are() {
        let all = filter("kubelet=debug").unwrap().to_string();
        assert!(all.split(',').any(|directive| directive == "info"), "{all}");
        let quieter = filter("error").unwrap().to_string();
        assert!(!quieter.split(',').any(|directive| directive == "info"), "{quieter}");
    }
}
