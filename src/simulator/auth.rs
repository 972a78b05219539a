//! The token: what is checked, and what each failure answers.

use std::collections::HashMap;
use std::time::Duration;

use http::HeaderMap;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use super::answer::Refusal;
use super::profile::{Credential, Profile, TokenScheme};
use crate::window::Timestamp;

/// The longest life of a token where JTI is enforced.
const LONGEST_LIFE: i64 = 3_600;

#[derive(Deserialize, Serialize)]
struct Claims {
    #[serde(rename = "appId")]
    app_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
}

/// The account that the call is for, if its token opens it.
///
/// `jtis` are those seen before, with the end of their tokens; a fresh one is added.
pub(super) fn check<'a>(
    profile: &'a Profile,
    headers: &HeaderMap,
    jtis: &mut HashMap<String, Timestamp>,
    now: Timestamp,
) -> Result<&'a Credential, Refusal> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let auth = text("auth").ok_or(Refusal::INVALID_CREDENTIALS)?;
    let bearer = auth.strip_prefix("Bearer ");
    let token = match profile.scheme {
        TokenScheme::Bare => auth,
        TokenScheme::Bearer => bearer.ok_or(Refusal::NOT_A_TOKEN)?,
        TokenScheme::Either => bearer.unwrap_or(auth),
    };
    jsonwebtoken::decode_header(token).map_err(|_| Refusal::NOT_A_TOKEN)?;

    let credential = text("accountId").and_then(|id| profile.credential(id)).ok_or(Refusal::INVALID_CREDENTIALS)?;
    let claims = verify(token, credential).ok_or(Refusal::INVALID_CREDENTIALS)?;
    if claims.app_id.as_deref() != Some(credential.client_id.as_str()) {
        return Err(Refusal::INVALID_CREDENTIALS);
    }
    if claims.exp.is_some_and(|exp| Timestamp::from_seconds(exp) <= now) {
        return Err(Refusal::INVALID_CREDENTIALS);
    }
    if profile.enforce_jti {
        check_jti(claims, jtis, now)?;
    }
    if profile.scope_missing { Err(Refusal::SCOPE_MISSING) } else { Ok(credential) }
}

/// The claims, if the secret signed them. Times are left to the simulator's own clock.
fn verify(token: &str, credential: &Credential) -> Option<Claims> {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    let key = DecodingKey::from_secret(credential.client_secret.as_bytes());
    Some(jsonwebtoken::decode(token, &key, &validation).ok()?.claims)
}

fn check_jti(claims: Claims, jtis: &mut HashMap<String, Timestamp>, now: Timestamp) -> Result<(), Refusal> {
    let (Some(jti), Some(exp)) = (claims.jti, claims.exp) else { return Err(Refusal::INVALID_CREDENTIALS) };
    let issued = claims.iat.unwrap_or_else(|| now.as_seconds());
    if exp.saturating_sub(issued) > LONGEST_LIFE {
        return Err(Refusal::INVALID_CREDENTIALS);
    }
    if jtis.len() >= 10_000 {
        jtis.retain(|_, end| *end > now);
    }
    // An expired token is refused before this, so a forgotten jti cannot come back.
    if jtis.insert(jti, Timestamp::from_seconds(exp)).is_some() { Err(Refusal::REPLAYED) } else { Ok(()) }
}

impl Credential {
    /// A token that opens this account for an hour from `now`, with a `jti` if one is given. `None`: it cannot be made.
    pub fn token(&self, now: Timestamp, jti: Option<String>) -> Option<String> {
        let claims = Claims {
            app_id: Some(self.client_id.clone()),
            iat: Some(now.as_seconds()),
            exp: Some((now + Duration::from_hours(1)).as_seconds()),
            jti,
        };
        let key = EncodingKey::from_secret(self.client_secret.as_bytes());
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).ok()
    }
}
