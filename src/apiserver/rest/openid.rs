//! The documents by which others check our service account tokens.

use serde_json::{Value, json};

use crate::auth::service_account::Tokens;

const KEYS_PATH: &str = "/openid/v1/jwks";

/// `/.well-known/openid-configuration`; the keys are at `host`.
pub(crate) fn configuration(tokens: &Tokens, host: &str) -> Value {
    json!({
        "issuer": tokens.issuer,
        "jwks_uri": format!("https://{host}{KEYS_PATH}"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}
