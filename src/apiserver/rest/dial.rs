//! Connections to kubelets and to the servers behind a proxy, with the words of upstream's client for
//! what fails.
//!
//! Every address passes [`Guard`] in its canonical form before it is connected to, and a name is
//! resolved once: the address that was checked is the address that is dialled.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{self, CryptoProvider, ring};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use wire::Paced;

use crate::config::Config;
use crate::error::ApiError;

/// Upstream's limit for a connection to be made.
const CONNECT_WITHIN: Duration = Duration::from_secs(30);

/// Who is to be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// A kubelet may listen on loopback: its certificate proves which node it is.
    Kubelet,
    /// A server of somebody's choice, which nothing else is known of.
    Any,
}

/// Which addresses a client may have this server connect to.
pub(super) struct Guard<'c>(pub(super) &'c Config);

impl Guard<'_> {
    /// The addresses of a host, all of which the peer may have, as upstream demands.
    ///
    /// # Errors
    /// `BadRequest` for an address that is forbidden or for a name without addresses.
    pub(super) async fn resolve(&self, peer: Peer, host: &str, port: u16) -> Result<Vec<SocketAddr>, ApiError> {
        let addresses: Vec<IpAddr> = match host.parse::<IpAddr>() {
            Ok(ip) => vec![ip],
            Err(_) if host.is_empty() => Vec::new(),
            Err(_) => {
                let found = tokio::net::lookup_host((host, port)).await;
                found.map_err(|e| ApiError::BadRequest(e.to_string()))?.map(|a| a.ip()).collect()
            }
        };
        let addresses: Vec<IpAddr> = addresses.iter().map(IpAddr::to_canonical).collect();
        if addresses.is_empty() || !addresses.iter().all(|ip| self.allows(peer, *ip, port)) {
            return Err(ApiError::BadRequest("address not allowed".to_owned()));
        }
        Ok(addresses.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
    }

    /// The API server itself is never a target: it would take its own requests for somebody's.
    fn allows(&self, peer: Peer, ip: IpAddr, port: u16) -> bool {
        let is_self = port == self.0.secure_port && is_of_this_machine(ip) || self.0.service_cidr.contains(&ip);
        let is_reachable = match peer {
            Peer::Kubelet => !ip.is_unspecified(),
            Peer::Any => is_global_unicast(ip),
        };
        is_reachable && !is_self
    }
}

/// Nobody reaches this machine's own loopback or link through a proxy.
fn is_global_unicast(ip: IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(link_local || ip.is_loopback() || ip.is_unspecified() || ip.is_multicast())
}

/// Only an address of this machine can be bound.
fn is_of_this_machine(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

/// Connects to one of the addresses of a host; the error reads as Go's.
pub(super) async fn tcp(addresses: &[SocketAddr]) -> Result<TcpStream, String> {
    let connected = tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect(addresses)).await;
    let connected = connected.unwrap_or_else(|_| Err(io::Error::from(ErrorKind::TimedOut)));
    connected.map_err(|e| {
        let shown = addresses.first().map(ToString::to_string).unwrap_or_default();
        format!("dial tcp {shown}: {}", connect_error(&e))
    })
}

/// TLS by the given rules within the time that a connection may take.
pub(super) async fn handshake(
    tls: Arc<ClientConfig>,
    host: &str,
    stream: TcpStream,
) -> Result<TlsStream<Paced<TcpStream>>, String> {
    let stream = Paced::turns(stream);
    let name = ServerName::try_from(host.to_owned()).map_err(text)?;
    match tokio::time::timeout(CONNECT_WITHIN, TlsConnector::from(tls).connect(name, stream)).await {
        Ok(shaken) => shaken.map_err(text),
        Err(_) => Err("net/http: TLS handshake timeout".to_owned()),
    }
}

/// As upstream's network library tells of a failure to connect.
fn connect_error(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        ErrorKind::TimedOut => "i/o timeout".to_owned(),
        _ => error.to_string(),
    }
}

/// TLS towards whoever answers: pods have certificates of their own making, so upstream checks none.
pub(super) async fn tls(stream: TcpStream, host: &str) -> Result<TlsStream<Paced<TcpStream>>, String> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(AnyCertificate(Arc::clone(&provider)));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(text)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    handshake(Arc::new(config), host, stream).await
}

fn text(error: impl fmt::Display) -> String {
    error.to_string()
}

/// Believes every certificate, but not that a stranger may use it.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_are_checked_in_their_canonical_form() {
        let config = Config { secure_port: 6443, ..crate::api_tests::fixtures::config() };
        let guard = Guard(&config);
        let check = async |peer: Peer, host: &str, port: u16, expected: Option<&str>| {
            let got = guard.resolve(peer, host, port).await;
            let got = got.map(|a| a[0].to_string()).map_err(|e| e.to_string());
            let expected = expected.map(str::to_owned).ok_or_else(|| "address not allowed".to_owned());
            assert_eq!(got, expected, "{peer:?} {host} {port}");
        };
        check(Peer::Any, "10.0.0.1", 80, Some("10.0.0.1:80")).await;
        check(Peer::Any, "::ffff:10.0.0.1", 80, Some("10.0.0.1:80")).await;
        for host in ["127.0.0.1", "127.8.0.1", "169.254.169.254", "0.0.0.0", "255.255.255.255", "224.0.0.1"] {
            check(Peer::Any, host, 80, None).await;
            check(Peer::Any, &format!("::ffff:{host}"), 80, None).await;
        }
        for host in ["", "::1", "::", "fe80::1", "ff02::1", "localhost"] {
            check(Peer::Any, host, 80, None).await;
        }
        check(Peer::Kubelet, "127.0.0.1", 10250, Some("127.0.0.1:10250")).await;
        // The server itself: by its port on this machine, and by any service.
        for host in ["127.0.0.1", "::ffff:127.0.0.1", "::1", "localhost", "0.0.0.0"] {
            check(Peer::Kubelet, host, 6443, None).await;
        }
        check(Peer::Kubelet, "10.96.0.1", 443, None).await;
        check(Peer::Kubelet, "::ffff:10.96.0.1", 443, None).await;
        check(Peer::Kubelet, "192.0.2.77", 6443, Some("192.0.2.77:6443")).await;
    }
}
