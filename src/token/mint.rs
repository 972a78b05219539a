//! Signs the JWT that Kore requires: HS256 over `appId` with the client secret.

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

/// Failure to sign a token. Contains nothing of the secret.
#[derive(Debug, thiserror::Error)]
#[error("HS256 failed: {0}")]
pub struct MintError(#[from] jsonwebtoken::errors::Error);

/// The payload. Kore requires the spelling `appId`, and documents `sub` beside it.
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

/// A token for `account`, valid from `now` (truncated to the second) for the account's `token.lifetime`.
///
/// With [`JtiMode::PerRequest`] each token carries a new `jti`.
///
/// # Errors
/// If the cryptographic library fails; no input causes that.
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
    use crate::config::{NamePatterns, TokenConfig, TokenScheme, WindowOverrides};

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
            window: WindowOverrides::default(),
            stream_settings: Vec::new(),
        }
    }

    fn now() -> Timestamp {
        Timestamp::from_millis(1_700_000_000_999)
    }

    /// The claims of the token, without verification of its signature.
    fn claims(token: &str) -> Value {
        jsonwebtoken::dangerous::insecure_decode_claims(token).unwrap()
    }

    /// The reference signature was made by `openssl dgst -sha256 -hmac` over the first two parts.
    #[test]
    fn token_equals_the_one_openssl_signs() {
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
    fn claims_have_kores_spelling() {
        let minted = mint(&account(JtiMode::Off), now()).unwrap();
        let expected = json!({"appId": "cs-1", "sub": "cs-1", "iat": 1_700_000_000, "exp": 1_700_000_600});
        assert_eq!(claims(minted.token.expose_secret()), expected);
    }

    #[test]
    fn enforced_jti_is_new_in_every_token() {
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
    fn debug_does_not_show_the_token() {
        let minted = mint(&account(JtiMode::Off), now()).unwrap();
        let shown = format!("{minted:?} {:?}", account(JtiMode::Off));
        assert!(!shown.contains(minted.token.expose_secret()) && !shown.contains(SECRET), "{shown}");
    }
}
