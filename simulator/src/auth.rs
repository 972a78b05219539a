//! Validation of tokens, with Kore's error for each failure.

use std::collections::HashMap;
use std::time::Duration;

use http::HeaderMap;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::profile::{AcceptedScheme, Credential, Profile};
use crate::response::ErrorReply;
use crate::time::UnixTime;

/// The maximum lifetime of a token where `jti` is enforced.
const MAX_LIFETIME_SECONDS: i64 = 3_600;

/// Beyond this number of used `jti`s, those of expired tokens are removed.
const MAX_USED_JTIS: usize = 10_000;

#[derive(Deserialize, Serialize)]
struct TokenClaims {
    #[serde(rename = "appId")]
    app_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
}

/// Returns the credential of the account that the request names, if its token is valid for that account.
///
/// `used_jtis` holds the `jti`s received so far with the expiry of their tokens. The `jti` of a valid token is added.
pub(crate) fn authenticate<'a>(
    profile: &'a Profile,
    headers: &HeaderMap,
    used_jtis: &mut HashMap<String, UnixTime>,
    now: UnixTime,
) -> Result<&'a Credential, ErrorReply> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let auth = text("auth").ok_or(ErrorReply::INVALID_CREDENTIALS)?;
    let bearer = auth.strip_prefix("Bearer ");
    let token = match profile.token.scheme {
        AcceptedScheme::Bare => auth,
        AcceptedScheme::Bearer => bearer.ok_or(ErrorReply::NOT_A_TOKEN)?,
        AcceptedScheme::Either => bearer.unwrap_or(auth),
    };
    jsonwebtoken::decode_header(token).map_err(|_| ErrorReply::NOT_A_TOKEN)?;

    let credential = text("accountId").and_then(|id| profile.credential(id)).ok_or(ErrorReply::INVALID_CREDENTIALS)?;
    let claims = verify(token, credential).ok_or(ErrorReply::INVALID_CREDENTIALS)?;
    if claims.app_id.as_deref() != Some(credential.client_id.as_str()) {
        return Err(ErrorReply::INVALID_CREDENTIALS);
    }
    if claims.exp.is_some_and(|exp| UnixTime::from_seconds(exp) <= now) {
        return Err(ErrorReply::INVALID_CREDENTIALS);
    }
    if profile.token.enforce_jti {
        check_jti(claims, used_jtis, now)?;
    }
    if profile.token.scope_missing { Err(ErrorReply::SCOPE_MISSING) } else { Ok(credential) }
}

/// Returns the claims if the signature is valid. The caller checks the expiry, by the simulator's clock.
fn verify(token: &str, credential: &Credential) -> Option<TokenClaims> {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    let key = DecodingKey::from_secret(credential.client_secret.as_bytes());
    Some(jsonwebtoken::decode(token, &key, &validation).ok()?.claims)
}

fn check_jti(claims: TokenClaims, used_jtis: &mut HashMap<String, UnixTime>, now: UnixTime) -> Result<(), ErrorReply> {
    let (Some(jti), Some(exp)) = (claims.jti, claims.exp) else { return Err(ErrorReply::INVALID_CREDENTIALS) };
    let issued = claims.iat.unwrap_or_else(|| now.as_seconds());
    if exp.saturating_sub(issued) > MAX_LIFETIME_SECONDS {
        return Err(ErrorReply::INVALID_CREDENTIALS);
    }
    if used_jtis.len() >= MAX_USED_JTIS {
        used_jtis.retain(|_, expiry| *expiry > now);
    }
    // Expired tokens are refused before this point, so a `jti` that was removed cannot be used again.
    if used_jtis.insert(jti, UnixTime::from_seconds(exp)).is_some() { Err(ErrorReply::REPLAYED) } else { Ok(()) }
}

impl Credential {
    /// A token for this account that is valid for one hour from `now`, with a `jti` if one is given. Returns `None` if
    /// signing fails.
    pub fn token(&self, now: impl Into<Timestamp>, jti: Option<String>) -> Option<String> {
        self.token_at(now.into().into(), jti)
    }

    pub(crate) fn token_at(&self, now: UnixTime, jti: Option<String>) -> Option<String> {
        let claims = TokenClaims {
            app_id: Some(self.client_id.clone()),
            iat: Some(now.as_seconds()),
            exp: Some((now + Duration::from_hours(1)).as_seconds()),
            jti,
        };
        let key = EncodingKey::from_secret(self.client_secret.as_bytes());
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).ok()
    }
}
