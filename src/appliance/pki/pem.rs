//! PEM files below the data directory, read as strictly as they are written.
//!
//! A file counts when it is, byte for byte, what would be written of its content today. Readers of PEM differ in what
//! else they put up with, so a file with one flipped bit may be whole to one of them and nothing to the next: the
//! server would start, and no client could use what it was given.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::server::ParsedCertificate;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

/// RFC 7468, section 2.
const LINE: usize = 64;
const CERTIFICATE: &str = "CERTIFICATE";
const KEY: &str = "PRIVATE KEY";

/// A certificate that is whole, as text and as what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Certificate {
    pub(super) pem: String,
    der: Vec<u8>,
}

impl Certificate {
    /// `None` when the file is damaged.
    pub(super) fn read(file: &[u8]) -> Option<Self> {
        let der = content(file, CERTIFICATE)?;
        let (rest, parsed) = X509Certificate::from_der(&der).ok()?;
        // What TLS reads more strictly.
        ParsedCertificate::try_from(&CertificateDer::from(der.as_slice())).ok()?;
        let is_whole = rest.is_empty()
            && parsed.signature_value.unused_bits == 0
            && parsed.signature_algorithm == parsed.tbs_certificate.signature;
        is_whole.then(|| Self { pem: text(&der, CERTIFICATE), der: der.clone() })
    }

    pub(super) fn der(&self) -> &[u8] {
        &self.der
    }

    pub(super) fn parsed(&self) -> X509Certificate<'_> {
        let (_, parsed) = X509Certificate::from_der(&self.der).expect("it was parsed when it was read");
        parsed
    }
}

/// The key in a file; `None` when the file is damaged.
pub(super) fn key(file: &[u8]) -> Option<rcgen::KeyPair> {
    let key = rcgen::KeyPair::try_from(content(file, KEY)?).ok()?;
    (key.serialize_pem().as_bytes() == file).then_some(key)
}

fn content(file: &[u8], label: &str) -> Option<Vec<u8>> {
    let known = std::str::from_utf8(file).ok()?;
    let body = known.strip_prefix(&begin(label))?.strip_suffix(&end(label))?;
    let der = STANDARD.decode(body.replace('\n', "")).ok()?;
    (text(&der, label) == known).then_some(der)
}

fn text(der: &[u8], label: &str) -> String {
    let body = STANDARD.encode(der);
    let mut lines = body.as_str();
    let mut text = begin(label);
    while !lines.is_empty() {
        let (line, rest) = lines.split_at(LINE.min(lines.len()));
        text.push_str(line);
        text.push('\n');
        lines = rest;
    }
    text + &end(label)
}

fn begin(label: &str) -> String {
    format!("-----BEGIN {label}-----\n")
}

fn end(label: &str) -> String {
    format!("-----END {label}-----\n")
}
