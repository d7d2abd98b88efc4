//! Where the process's own log lines go: standard error, which systemd and containers collect.

use tracing_subscriber::EnvFilter;

/// What is shown unless `--log-level` says otherwise; the libraries' own chatter only when it warns.
pub(crate) const DEFAULT_LEVEL: &str = "info";

/// Installs the subscriber.
///
/// # Errors
/// When the level is not a filter that `tracing` knows.
pub(crate) fn install(level: &str) -> anyhow::Result<()> {
    let quiet = "libcontainer=warn,libcgroups=warn,hickory_server=warn,hickory_resolver=warn,hyper=warn,rustls=warn,tower=warn,oci_client=warn";
    let filter = EnvFilter::try_new(format!("{quiet},{level}"))
        .map_err(|e| anyhow::anyhow!("invalid --log-level {level:?}: {e}"))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    Ok(())
}
