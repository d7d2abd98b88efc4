//! JSON Web Tokens of one kind: compact serialisation, signed with ES256 (ECDSA on P-256).
//!
//! Signing and checking only; what the claims mean is `service_account`'s. Every other algorithm,
//! `none` included, is refused, because the header never chooses how a token is checked.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// DER of `SubjectPublicKeyInfo { id-ecPublicKey, prime256v1 }` up to the point itself.
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// An uncompressed point: 0x04, then 32 bytes for each coordinate.
const POINT_LENGTH: usize = 65;

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the key is no PKCS#8 PEM")]
    Pem,
    #[error("the key is no P-256 private key")]
    Rejected,
}

/// Why a token is no token of ours.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TokenError {
    #[error("malformed token")]
    Malformed,
    #[error("unknown signing key")]
    UnknownKey,
    #[error("invalid signature")]
    Signature,
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    alg: String,
    kid: String,
    /// Extensions that must be understood; none is (RFC 7515, section 4.1.11).
    #[serde(default, skip_serializing)]
    crit: Option<IgnoredAny>,
}

/// The key that signs the cluster's service account tokens.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    public: VerifyingKey,
}

/// The public half, with the key id that upstream derives from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyingKey {
    pub kid: String,
    point: Vec<u8>,
}

impl SigningKey {
    /// Reads a PKCS#8 private key in PEM.
    ///
    /// # Errors
    /// When it is no such key.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| KeyError::Pem)?;
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der(), &random)
            .map_err(|_| KeyError::Rejected)?;
        let public = VerifyingKey::from_point(pair.public_key().as_ref()).ok_or(KeyError::Rejected)?;
        Ok(Self { pair, random, public })
    }

    #[must_use]
    pub fn public(&self) -> &VerifyingKey {
        &self.public
    }

    /// The signed token that carries `claims`.
    ///
    /// # Panics
    /// Never for claims that are plain structures: only a map with keys other than strings cannot be JSON.
    pub fn sign<C: Serialize>(&self, claims: &C) -> String {
        let header = Header { alg: "ES256".to_owned(), kid: self.public.kid.clone(), crit: None };
        let mut token = encode(&serde_json::to_vec(&header).expect("invariant: a header of two strings is JSON"));
        token.push('.');
        token.push_str(&encode(&serde_json::to_vec(claims).expect("invariant: claims are plain structures")));
        let signature =
            self.pair.sign(&self.random, token.as_bytes()).expect("invariant: the system gives random numbers");
        token.push('.');
        token.push_str(&encode(signature.as_ref()));
        token
    }
}

impl VerifyingKey {
    fn from_point(point: &[u8]) -> Option<Self> {
        if point.len() != POINT_LENGTH || point[0] != 4 {
            return None;
        }
        let digest = Sha256::new().chain_update(SPKI_PREFIX).chain_update(point).finalize();
        Some(Self { kid: encode(&digest), point: point.to_vec() })
    }

    /// This key as an entry of a JSON Web Key Set.
    #[must_use]
    pub fn jwk(&self) -> serde_json::Value {
        serde_json::json!({
            "use": "sig", "kty": "EC", "kid": self.kid, "crv": "P-256", "alg": "ES256",
            "x": encode(&self.point[1..33]), "y": encode(&self.point[33..]),
        })
    }
}

/// Checks a token's signature against the keys and returns its claims, which are not judged here.
///
/// # Errors
/// When the token is malformed, or no key of ours signed it.
pub fn verify<C: DeserializeOwned>(token: &str, keys: &[VerifyingKey]) -> Result<C, TokenError> {
    let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
    let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
    let header: Header = parse(header)?;
    if header.crit.is_some() {
        return Err(TokenError::Malformed);
    }
    let key = keys.iter().find(|k| k.kid == header.kid && header.alg == "ES256").ok_or(TokenError::UnknownKey)?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Malformed)?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &key.point)
        .verify(signed.as_bytes(), &signature)
        .map_err(|_| TokenError::Signature)?;
    parse(claims)
}

fn parse<T: DeserializeOwned>(part: &str) -> Result<T, TokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| TokenError::Malformed)
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;

    pub(crate) fn key() -> SigningKey {
        SigningKey::from_pem(&rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap()
    }

    #[test]
    fn a_token_carries_its_claims_through() {
        let key = key();
        let claims = json!({"sub": "a", "n": 7});
        let token = key.sign(&claims);
        assert_eq!(verify::<Value>(&token, &[key.public().clone()]), Ok(claims));
        let header: Header = parse(token.split('.').next().unwrap()).unwrap();
        assert_eq!((header.alg.as_str(), header.kid.as_str()), ("ES256", key.public().kid.as_str()));
    }

    #[test]
    fn what_was_tampered_with_is_refused() {
        let (key, other) = (key(), key());
        let token = key.sign(&json!({"sub": "a"}));
        let keys = [key.public().clone()];
        let parts: Vec<&str> = token.split('.').collect();
        let forged = encode(br#"{"sub":"b"}"#);
        let none = encode(format!(r#"{{"alg":"none","kid":"{}"}}"#, keys[0].kid).as_bytes());
        let cases = [
            (format!("{}.{forged}.{}", parts[0], parts[2]), TokenError::Signature),
            (format!("{none}.{}.", parts[1]), TokenError::UnknownKey),
            (other.sign(&json!({"sub": "a"})), TokenError::UnknownKey),
            (format!("{}.{}", parts[0], parts[1]), TokenError::Malformed),
            (String::new(), TokenError::Malformed),
        ];
        for (token, expected) in cases {
            assert_eq!(verify::<Value>(&token, &keys), Err(expected), "{token}");
        }
    }

    #[test]
    fn an_extension_that_must_be_understood_is_refused() {
        let key = key();
        let keys = [key.public().clone()];
        let signed = |header: &Value| {
            let token = format!("{}.{}", encode(header.to_string().as_bytes()), encode(br#"{"sub":"a"}"#));
            let signature = key.pair.sign(&key.random, token.as_bytes()).unwrap();
            format!("{token}.{}", encode(signature.as_ref()))
        };
        let header = json!({"alg": "ES256", "kid": keys[0].kid});
        assert!(verify::<Value>(&signed(&header), &keys).is_ok());
        for crit in [json!(["exp"]), json!([])] {
            let mut header = header.clone();
            header["crit"] = crit;
            assert_eq!(verify::<Value>(&signed(&header), &keys), Err(TokenError::Malformed), "{header}");
        }
    }

    #[test]
    fn the_jwk_holds_both_coordinates() {
        let jwk = key().public().jwk();
        for field in ["x", "y"] {
            assert_eq!(URL_SAFE_NO_PAD.decode(jwk[field].as_str().unwrap()).unwrap().len(), 32, "{field}");
        }
    }
}
