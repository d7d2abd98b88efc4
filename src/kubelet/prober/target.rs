//! One probe, carried out once: which action, against what, and how its outcome reads.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use api::k8s_openapi::api::core::v1::Container;
use api::k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};

use super::{Prober, grpc, http};

/// Output of a command or a server that goes into an event.
const MAX_OUTPUT: usize = 10 * 1024;

/// The outcome of one try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Checked {
    Success,
    /// Counts as success, with a word of caution.
    Warning(String),
    Failure(String),
    /// It could not be carried out; counts as a failure.
    Error(String),
}

impl Checked {
    pub(super) fn is_success(&self) -> bool {
        match self {
            Self::Success | Self::Warning(_) => true,
            Self::Failure(_) | Self::Error(_) => false,
        }
    }
}

pub(super) async fn check(prober: &Prober, limit: Duration) -> Checked {
    let probe = &prober.probe;
    if let Some(action) = &probe.exec {
        return exec(prober, action.command.clone().unwrap_or_default(), limit).await;
    }
    if let Some(action) = &probe.http_get {
        return match http::Target::of(action, &prober.container, &prober.pod_ip, http::Purpose::Probe) {
            Ok(target) => http::probe(&target, limit).await,
            Err(why) => Checked::Error(why),
        };
    }
    if let Some(action) = &probe.tcp_socket {
        let host = action.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(&prober.pod_ip);
        return match port_number(&action.port, &prober.container) {
            Ok(port) => tcp(host, port, limit).await,
            Err(why) => Checked::Error(why),
        };
    }
    if let Some(action) = &probe.grpc {
        let port = u16::try_from(action.port).unwrap_or_default();
        let service = action.service.clone().unwrap_or_default();
        return grpc::probe(&prober.pod_ip, port, &service, limit).await;
    }
    Checked::Error("missing probe handler".to_owned())
}

async fn exec(prober: &Prober, command: Vec<String>, limit: Duration) -> Checked {
    let line = command.join(" ");
    match prober.runtime.exec_sync(&prober.container_id, command, limit).await {
        Ok(result) if result.exit_code == 0 => Checked::Success,
        Ok(result) => {
            let mut output = String::from_utf8_lossy(&result.stdout).into_owned();
            output.push_str(&String::from_utf8_lossy(&result.stderr));
            output.truncate(output.floor_char_boundary(MAX_OUTPUT));
            Checked::Failure(output)
        }
        Err(runtime::Error::ExecTimeout { .. }) => {
            Checked::Failure(format!("command timed out: {line:?} timed out after {}s", limit.as_secs()))
        }
        Err(e) => Checked::Error(e.to_string()),
    }
}

async fn tcp(host: &str, port: u16, limit: Duration) -> Checked {
    match connect(host, port, limit).await {
        Ok(_) => Checked::Success,
        Err(text) => Checked::Failure(text),
    }
}

/// A connection, or the text that Go's dialer gives.
pub(super) async fn connect(host: &str, port: u16, limit: Duration) -> Result<TcpStream, String> {
    let end = Instant::now() + limit;
    let addresses = match host.parse::<IpAddr>() {
        Ok(ip) => vec![SocketAddr::new(ip, port)],
        Err(_) => match timeout_at(end, lookup_host((host, port))).await {
            Err(_) => return Err(format!("dial tcp: lookup {host}: i/o timeout")),
            Ok(Err(_)) => return Err(format!("dial tcp: lookup {host}: no such host")),
            Ok(Ok(found)) => found.collect(),
        },
    };
    let mut last = format!("dial tcp: lookup {host}: no such host");
    for address in addresses {
        match timeout_at(end, TcpStream::connect(address)).await {
            // Go names the address that it tried, which a name only stands for.
            Err(_) => return Err(format!("dial tcp {address}: i/o timeout")),
            Ok(Err(e)) => last = format!("dial tcp {address}: {}", connect_error(&e)),
            Ok(Ok(stream)) => return Ok(stream),
        }
    }
    Err(last)
}

fn connect_error(e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        io::ErrorKind::TimedOut => "connect: connection timed out".to_owned(),
        _ => e.to_string(),
    }
}

/// The number behind a port that may be a name of one of the container's ports.
pub(crate) fn port_number(port: &IntOrString, c: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(n) => *n,
        IntOrString::String(name) => {
            let named = c.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name)).map(|p| p.container_port);
            match named.or_else(|| name.parse().ok()) {
                Some(n) => n,
                None => return Err(format!("couldn't find port: {name:?} in container {:?}", c.name)),
            }
        }
    };
    u16::try_from(number).ok().filter(|&n| n > 0).ok_or_else(|| format!("invalid port number: {number}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ports_are_numbers_or_names() {
        let c: Container =
            serde_json::from_value(json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]})).unwrap();
        for (port, expected) in [
            (json!(80), Ok(80)),
            (json!("web"), Ok(8080)),
            (json!("81"), Ok(81)),
            (json!("nope"), Err("couldn't find port: \"nope\" in container \"c\"".to_owned())),
            (json!(70_000), Err("invalid port number: 70000".to_owned())),
        ] {
            assert_eq!(port_number(&serde_json::from_value(port).unwrap(), &c), expected);
        }
    }

    #[tokio::test]
    async fn a_refused_connection_reads_as_gos() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(tcp("127.0.0.1", port, Duration::from_secs(5)).await, Checked::Success);
        drop(listener);
        let expected = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
        assert_eq!(tcp("127.0.0.1", port, Duration::from_secs(5)).await, Checked::Failure(expected));
    }

    #[tokio::test]
    async fn a_name_that_nobody_has_reads_as_gos() {
        // More than a label may have: no server is asked.
        let name = "a".repeat(70);
        let got = tcp(&name, 80, Duration::from_secs(5)).await;
        assert_eq!(got, Checked::Failure(format!("dial tcp: lookup {name}: no such host")));
    }
}
