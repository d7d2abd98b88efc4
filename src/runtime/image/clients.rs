//! The clients of registries that were asked last, kept because a new one is dear: it parses every
//! certificate authority of the machine (a hundred and more) and begins with a new connection.
//!
//! A client holds on to its credentials and to the tokens it got for them, so it serves only those who bring
//! the same.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::redirect::Policy;

use super::registries::{Endpoint, is_loopback};
use super::registry::{Client, Credentials, RegistryError};
use crate::types::RegistryAuth;

/// A node pulls from a few registries; each client holds some hundred KiB of authorities.
const KEPT: usize = 4;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Without a byte for this long a connection is given up.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// The client used last stands first.
#[derive(Default)]
pub(super) struct Clients(Mutex<VecDeque<(Key, Client)>>);

/// All that a client's answers depend on.
#[derive(Clone, PartialEq)]
pub(super) struct Key {
    registry: String,
    plain_http: bool,
    insecure: bool,
    ca: Option<Vec<u8>>,
    credentials: Credentials,
}

impl Key {
    pub(super) fn new(endpoint: &Endpoint, auth: Option<&RegistryAuth>) -> Self {
        let credentials = match auth {
            Some(RegistryAuth { identity_token: Some(token), .. }) => Credentials::Identity(token.clone()),
            Some(RegistryAuth { username, password, .. }) if !username.is_empty() => {
                Credentials::Basic { username: username.clone(), password: password.clone() }
            }
            Some(_) | None => Credentials::Anonymous,
        };
        let Endpoint { reference, plain_http, auth: _, ca, insecure } = endpoint;
        // Docker's registry has another address than its name.
        let registry = reference.resolve_registry().to_owned();
        Self { registry, plain_http: *plain_http, insecure: *insecure, ca: ca.clone(), credentials }
    }

    /// Fails where a certificate cannot be read, or the machine has none of the usual authorities'.
    fn client(&self) -> Result<Client, RegistryError> {
        let http = self.http(Policy::default())?;
        let tokens = match self.credentials {
            // What is posted would be posted again where a redirect leads.
            Credentials::Identity(_) => self.http(Policy::none())?,
            Credentials::Anonymous | Credentials::Basic { .. } => http.clone(),
        };
        Ok(Client::new(http, tokens, self.plain_http, &self.registry, self.credentials.clone()))
    }

    fn http(&self, redirects: Policy) -> Result<reqwest::Client, RegistryError> {
        let certificates = self.ca.iter().map(|ca| reqwest::Certificate::from_pem(ca));
        let builder = reqwest::Client::builder().redirect(redirects);
        // The proxies of the environment are for other machines, as Go's ProxyFromEnvironment has it.
        let builder = if is_loopback(&self.registry) { builder.no_proxy() } else { builder };
        let http = builder
            .danger_accept_invalid_certs(self.insecure)
            .tls_certs_merge(certificates.collect::<Result<Vec<_>, _>>()?)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .user_agent(concat!("coracle/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(http)
    }
}

impl Clients {
    pub(super) fn get(&self, key: &Key) -> Result<Client, RegistryError> {
        let mut kept = self.0.lock();
        let client = match kept.iter().position(|(k, _)| k == key).and_then(|at| kept.remove(at)) {
            Some((_, client)) => client,
            None => key.client()?,
        };
        kept.push_front((key.clone(), client.clone()));
        kept.truncate(KEPT);
        Ok(client)
    }

    /// After a failure: what was kept may be the reason, such as a token that is not valid any more.
    pub(super) fn forget(&self, key: &Key) {
        self.0.lock().retain(|(k, _)| k != key);
    }
}

impl std::fmt::Debug for Clients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Clients").field(&self.0.lock().len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(registry: &str, password: Option<&str>) -> Key {
        let endpoint = Endpoint {
            reference: format!("{registry}/a/b:c").parse().unwrap(),
            plain_http: true,
            auth: None,
            ca: None,
            insecure: false,
        };
        let auth = password.map(|password| RegistryAuth {
            username: "u".to_owned(),
            password: password.to_owned(),
            identity_token: None,
        });
        Key::new(&endpoint, auth.as_ref())
    }

    fn kept(clients: &Clients, key: &Key) -> bool {
        clients.0.lock().iter().any(|(k, _)| k == key)
    }

    #[test]
    fn a_client_serves_only_those_with_its_credentials() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let clients = Clients::default();
        let (anonymous, alice, bob) = (key("r:1", None), key("r:1", Some("alice")), key("r:1", Some("bob")));
        clients.get(&alice).unwrap();
        assert!(kept(&clients, &alice) && !kept(&clients, &anonymous) && !kept(&clients, &bob));
        clients.get(&alice).unwrap();
        assert_eq!(clients.0.lock().len(), 1, "the same again");
        clients.forget(&alice);
        assert!(!kept(&clients, &alice));
    }

    #[test]
    fn the_client_used_longest_ago_goes_first() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let clients = Clients::default();
        let keys: Vec<Key> = (0..=KEPT).map(|n| key(&format!("r{n}:1"), None)).collect();
        for k in &keys[..KEPT] {
            clients.get(k).unwrap();
        }
        clients.get(&keys[0]).unwrap();
        clients.get(&keys[KEPT]).unwrap();
        let left: Vec<bool> = keys.iter().map(|k| kept(&clients, k)).collect();
        assert_eq!(left, [true, false, true, true, true]);
    }
}
