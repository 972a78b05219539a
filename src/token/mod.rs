//! The token stage: puts a fresh JWT into `auth`. The only stage that sees a secret.

pub mod mint;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::HeaderValue;
use secrecy::ExposeSecret as _;
use tower::{Layer, Service, ServiceExt as _};

use self::mint::{MintError, Minted};
use crate::clock::Clock;
use crate::config::{self, Jti, Scheme};
use crate::upstream::{Again, AuthorizedRequest, Page, PageRequest, UpstreamError};

/// Why a call was not authorized, or failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TokenError {
    /// No account of this name is configured; the api stage has checked that before.
    #[error("the account is not configured")]
    UnknownAccount,
    /// The token cannot be signed.
    #[error("a token cannot be made: {0}")]
    Mint(String),
    /// The call failed.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

impl From<MintError> for TokenError {
    fn from(error: MintError) -> Self {
        Self::Mint(error.to_string())
    }
}

impl TokenError {
    /// Whether trying again can help.
    pub fn again(&self) -> Again {
        match self {
            Self::UnknownAccount | Self::Mint(_) => Again::Never,
            Self::Upstream(error) => error.again(),
        }
    }
}

/// The token of one account.
#[derive(Debug)]
struct TokenSource {
    account: config::Account,
    clock: Clock,
    /// Held while a token is signed, which takes microseconds: of a herd that finds the token due, one makes the next.
    current: Mutex<Option<Current>>,
}

#[derive(Debug)]
struct Current {
    minted: Minted,
    header: HeaderValue,
}

impl TokenSource {
    /// A token that is not due for refreshing; one of its own for each call where the app enforces JTI.
    fn header(&self) -> Result<HeaderValue, MintError> {
        let now = self.clock.now();
        if self.account.token.jti == Jti::PerRequest {
            return self.mint(now).map(|current| current.header);
        }
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let due = |current: &Current| current.minted.expires - self.account.token.refresh_ahead <= now;
        match current.as_ref().filter(|current| !due(current)) {
            Some(current) => Ok(current.header.clone()),
            None => Ok(current.insert(self.mint(now)?).header.clone()),
        }
    }

    fn mint(&self, now: crate::window::Moment) -> Result<Current, MintError> {
        let minted = mint::mint(&self.account, now)?;
        let text = match self.account.token.scheme {
            Scheme::Bare => minted.token.expose_secret().to_owned(),
            Scheme::Bearer => format!("Bearer {}", minted.token.expose_secret()),
        };
        let mut header = HeaderValue::try_from(text).expect("a JWT is base64url and dots");
        header.set_sensitive(true);
        Ok(Current { minted, header })
    }

    /// The upstream refused this token: the next call gets another. A token made since then stays.
    fn forget(&self, refused: &HeaderValue) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|current| current.header == refused) {
            *current = None;
        }
    }
}

/// Puts a token on each call.
#[derive(Clone, Debug)]
pub struct TokenLayer(Arc<HashMap<Arc<str>, Arc<TokenSource>>>);

impl TokenLayer {
    /// One token source for each account.
    pub fn new(accounts: &[config::Account], clock: &Clock) -> Self {
        let source = |account: &config::Account| TokenSource {
            account: account.clone(),
            clock: clock.clone(),
            current: Mutex::new(None),
        };
        Self(Arc::new(accounts.iter().map(|a| (a.account_id.clone(), Arc::new(source(a)))).collect()))
    }
}

impl<S> Layer<S> for TokenLayer {
    type Service = TokenStage<S>;

    fn layer(&self, below: S) -> TokenStage<S> {
        TokenStage { sources: self.clone(), below }
    }
}

/// See [`TokenLayer`].
#[derive(Clone, Debug)]
pub struct TokenStage<S> {
    sources: TokenLayer,
    below: S,
}

impl<S> Service<PageRequest> for TokenStage<S>
where
    S: Service<AuthorizedRequest, Response = Page, Error = UpstreamError> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Page;
    type Error = TokenError;
    type Future = BoxFuture<'static, Result<Page, TokenError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TokenError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, page: PageRequest) -> Self::Future {
        let source = self.sources.0.get(&page.series.account).cloned();
        let below = self.below.clone();
        Box::pin(async move {
            let source = source.ok_or(TokenError::UnknownAccount)?;
            let auth = source.header()?;
            let result = below.oneshot(AuthorizedRequest { page, auth: auth.clone() }).await;
            if let Err(UpstreamError::Unauthorized { .. }) = result {
                source.forget(&auth);
            }
            Ok(result?)
        })
    }
}
