//! Makes the JWT that Kore asks for: HS256 over `appId` with the client secret.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use uuid::Uuid;

use crate::config::{AccountConfig, JtiMode};
use crate::window::Timestamp;

/// A signed token. Its `Debug` does not show it.
#[derive(Debug)]
pub struct Minted {
    /// The JWT, without a scheme in front.
    pub token: SecretString,
    /// When Kore stops accepting it: the claim `exp`, a whole second.
    pub expires: Timestamp,
}

/// A token could not be signed. It tells nothing of the secret.
#[derive(Debug, thiserror::Error)]
#[error("HS256 failed: {0}")]
pub struct MintError(#[from] jsonwebtoken::errors::Error);

/// The payload. Kore wants `appId` spelled exactly so, and documents `sub` beside it.
#[derive(Serialize)]
struct Claims<'a> {
    #[serde(rename = "appId")]
    app_id: &'a str,
    sub: &'a str,
    /// Seconds since the epoch.
    iat: i64,
    /// Seconds since the epoch.
    exp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
}

/// A token for `account` that is valid from `now`, cut to the second, for the account's `token.lifetime`.
///
/// With [`JtiMode::PerRequest`] each one carries a `jti` of its own.
///
/// # Errors
/// Only if the cryptographic library fails; no input makes it.
pub fn mint(account: &AccountConfig, now: Timestamp) -> Result<Minted, MintError> {
    let issued = now.floor_second();
    let expires = issued + account.token.lifetime;
    let claims = Claims {
        app_id: &account.client_id,
        sub: &account.client_id,
        iat: issued.as_seconds(),
        exp: expires.as_seconds(),
        jti: match account.token.jti {
            JtiMode::Off => None,
            JtiMode::PerRequest => Some(Uuid::new_v4().to_string()),
        },
    };
    let key = EncodingKey::from_secret(account.client_secret.expose_secret().as_bytes());
    let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key)?;
    Ok(Minted { token: token.into(), expires })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::config::{NamePatterns, TokenConfig, TokenScheme};

    const SECRET: &str = "a-client-secret-of-the-usual-length=";

    fn account(jti: JtiMode) -> AccountConfig {
        AccountConfig {
            account_id: "acc-1".into(),
            client_id: "cs-1".to_owned(),
            client_secret: SECRET.into(),
            streams: NamePatterns::All,
            token: TokenConfig {
                lifetime: Duration::from_mins(10),
                refresh_ahead: Duration::from_mins(1),
                scheme: TokenScheme::Bearer,
                jti,
            },
            limits: Vec::new(),
        }
    }

    fn now() -> Timestamp {
        Timestamp::from_millis(1_700_000_000_999)
    }

    /// The claims as they stand in the token, its signature unchecked.
    fn claims(token: &str) -> Value {
        jsonwebtoken::dangerous::insecure_decode_claims(token).unwrap()
    }

    /// Made by another implementation of HMAC: `openssl dgst -sha256 -hmac` over these two parts.
    #[test]
    fn is_the_token_that_openssl_signs() {
        let minted = mint(&account(JtiMode::Off), now()).unwrap();
        assert_eq!(
            minted.token.expose_secret(),
            concat!(
                "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9",
                ".",
                "eyJhcHBJZCI6ImNzLTEiLCJzdWIiOiJjcy0xIiwiaWF0IjoxNzAwMDAwMDAwLCJleHAiOjE3MDAwMDA2MDB9",
                ".",
                "-57ZLt6ialjjwY1HDpADlAAr1_n1kHC2vHolUguLzdU"
            )
        );
        assert_eq!(minted.expires, Timestamp::from_seconds(1_700_000_600));
    }

    #[test]
    fn claims_are_as_kore_spells_them() {
        let minted = mint(&account(JtiMode::Off), now()).unwrap();
        let expected = json!({"appId": "cs-1", "sub": "cs-1", "iat": 1_700_000_000, "exp": 1_700_000_600});
        assert_eq!(claims(minted.token.expose_secret()), expected);
    }

    #[test]
    fn enforced_jti_is_fresh_in_every_token() {
        let jti = || {
            let minted = mint(&account(JtiMode::PerRequest), now()).unwrap();
            let claims = claims(minted.token.expose_secret());
            Uuid::parse_str(claims["jti"].as_str().unwrap()).unwrap()
        };
        let (one, two) = (jti(), jti());
        assert_ne!(one, two);
        assert_eq!(one.get_version_num(), 4);
    }

    #[test]
    fn is_not_shown_by_accident() {
        let minted = mint(&account(JtiMode::Off), now()).unwrap();
        let shown = format!("{minted:?} {:?}", account(JtiMode::Off));
        assert!(!shown.contains(minted.token.expose_secret()) && !shown.contains(SECRET), "{shown}");
    }
}
