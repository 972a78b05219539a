//! The token stage: puts a valid JWT into `auth`, and refreshes it `token.refresh_ahead` before it expires, or after
//! the upstream has refused it. The only stage that sees a secret.

pub mod mint;
mod reach;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{HeaderValue, StatusCode};
use secrecy::ExposeSecret as _;
use tower::{Layer, Service, ServiceExt as _};

use self::mint::{MintError, Minted};
use self::reach::{StreamReach, possible_stream_refusal};
use crate::clock::Clock;
use crate::config;
use crate::config::{JtiMode, TokenScheme};
use crate::live::Live;
use crate::upstream::{AuthorizedRequest, Page, PageRequest, RetryHint, UpstreamError, quoted};

/// Reason why a call was not authorized, or failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TokenError {
    /// No account of this name is configured; the API stage has checked that before.
    #[error("the account is not configured")]
    UnknownAccount,
    /// The token cannot be signed.
    #[error("a token cannot be made: {0}")]
    Mint(String),
    /// The stream is refused, but the credential is valid: it was accepted for another stream lately.
    #[error(
        "the upstream refused this stream with {status}{}, but accepts the same credential for another stream",
        quoted(*.message)
    )]
    StreamRefused {
        /// The status.
        status: StatusCode,
        /// Kore's message, if it is a known one.
        message: Option<&'static str>,
    },
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
    /// The kind of retry that may help.
    pub fn again(&self) -> RetryHint {
        match self {
            // As without other streams: a new token helps if the old one was at fault.
            Self::StreamRefused { status, .. } if status.as_u16() == 401 => RetryHint::Once,
            Self::UnknownAccount | Self::Mint(_) | Self::StreamRefused { .. } => RetryHint::Never,
            Self::Upstream(error) => error.again(),
        }
    }
}

/// The resolution of `iat` and `exp`.
const SECOND: Duration = Duration::from_secs(1);

/// The token of one account.
#[derive(Debug)]
struct TokenSource {
    account: config::AccountConfig,
    clock: Clock,
    /// Locked while a token is signed, which takes microseconds: of many concurrent calls only one signs the next
    /// token.
    state: Mutex<State>,
    reach: Mutex<StreamReach>,
}

#[derive(Debug, Default)]
struct State {
    current: Option<Current>,
    /// The token that the upstream refused last. A token signed in the same second would be identical to it.
    refused: Option<HeaderValue>,
}

#[derive(Debug)]
struct Current {
    minted: Minted,
    header: HeaderValue,
}

impl TokenSource {
    fn new(account: &config::AccountConfig, clock: &Clock) -> Self {
        let (state, reach) = Default::default();
        Self { account: account.clone(), clock: clock.clone(), state, reach }
    }

    /// Whether the tokens of `account` are those of this source.
    fn signs_for(&self, account: &config::AccountConfig) -> bool {
        let own = &self.account;
        own.client_id == account.client_id
            && own.client_secret.expose_secret() == account.client_secret.expose_secret()
            && own.token == account.token
    }

    /// A token that is not due for renewal; a new one for each call where the app enforces JTI.
    fn header(&self) -> Result<HeaderValue, MintError> {
        let now = self.clock.now();
        if self.account.token.jti == JtiMode::PerRequest {
            return self.mint(now).map(|current| current.header);
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let due = |current: &Current| current.minted.expires - self.account.token.refresh_ahead <= now;
        if let Some(current) = state.current.as_ref().filter(|current| !due(current)) {
            return Ok(current.header.clone());
        }
        let mut next = self.mint(now)?;
        if state.refused.as_ref() == Some(&next.header) {
            next = self.mint(now - SECOND)?;
        }
        Ok(state.current.insert(next).header.clone())
    }

    fn mint(&self, now: crate::window::Timestamp) -> Result<Current, MintError> {
        let minted = mint::mint(&self.account, now)?;
        let text = match self.account.token.scheme {
            TokenScheme::Bare => minted.token.expose_secret().to_owned(),
            TokenScheme::Bearer => format!("Bearer {}", minted.token.expose_secret()),
        };
        let mut header = HeaderValue::try_from(text).expect("a JWT is base64url and dots");
        header.set_sensitive(true);
        Ok(Current { minted, header })
    }

    /// The result of a call for `stream`, with a refusal of the credential told from one of the stream.
    fn attribute(&self, stream: &Arc<str>, result: Result<Page, UpstreamError>) -> Result<Page, TokenError> {
        let now = self.clock.now();
        let mut reach = self.reach.lock().unwrap_or_else(PoisonError::into_inner);
        let error = match result {
            Ok(page) => {
                reach.accepted(stream, now);
                return Ok(page);
            }
            Err(error) => error,
        };
        Err(match possible_stream_refusal(&error) {
            Some((status, message)) if reach.refused(stream, now) => TokenError::StreamRefused { status, message },
            _ => error.into(),
        })
    }

    /// Discards a token that the upstream refused. A token signed since then is kept.
    fn forget(&self, refused: &HeaderValue) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.current.as_ref().is_some_and(|current| current.header == refused) {
            state.current = None;
            state.refused = Some(refused.clone());
        }
    }
}

/// Adds a token to each call.
#[derive(Clone, Debug)]
pub struct TokenLayer {
    sources: Live<HashMap<Arc<str>, Arc<TokenSource>>>,
    clock: Clock,
}

impl TokenLayer {
    /// A token source for each account.
    pub fn new(accounts: &[config::AccountConfig], clock: &Clock) -> Self {
        let layer = Self { sources: Live::default(), clock: clock.clone() };
        layer.configure(accounts);
        layer
    }

    /// Replaces the accounts. A call that begins from now on is signed with the new credential, also within a run that
    /// began before. An account whose credential stays keeps its
    /// token, and one that is gone ends the runs that have begun.
    pub fn configure(&self, accounts: &[config::AccountConfig]) {
        let known = self.sources.load();
        let source = |account: &config::AccountConfig| {
            let known = known.get(&account.account_id).filter(|source| source.signs_for(account));
            let source = known.cloned().unwrap_or_else(|| Arc::new(TokenSource::new(account, &self.clock)));
            (account.account_id.clone(), source)
        };
        let mut sources = HashMap::clone(&known);
        sources.extend(accounts.iter().map(source));
        self.sources.replace(sources);
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
        let source = self.sources.sources.load().get(&page.series.account).cloned();
        let below = self.below.clone();
        Box::pin(async move {
            let source = source.ok_or(TokenError::UnknownAccount)?;
            let auth = source.header()?;
            let series = page.series.clone();
            let result = below.oneshot(AuthorizedRequest { page, auth: auth.clone() }).await;
            if let Err(UpstreamError::Unauthorized { .. }) = result {
                source.forget(&auth);
            }
            source.attribute(&series.stream, result)
        })
    }
}

#[cfg(test)]
mod tests {
    use tower::service_fn;

    use super::*;
    use crate::request::{Filter, Requester, RunWaiters, Series};
    use crate::upstream::known_message;
    use crate::window::{Interval, Timestamp, UpperBound};

    const REFUSED_STREAM: &str = "st-refused";

    /// An upstream that records each token and refuses those in `refused`, and one stream.
    #[derive(Clone, Default)]
    struct Upstream {
        seen: Arc<Mutex<Vec<HeaderValue>>>,
        refused: Arc<Mutex<Vec<HeaderValue>>>,
    }

    impl Upstream {
        fn behind(
            &self,
            jti: JtiMode,
            scheme: TokenScheme,
            clock: &Clock,
        ) -> impl Service<PageRequest, Response = Page, Error = TokenError> + Clone + use<> {
            let token = config::TokenConfig {
                lifetime: Duration::from_hours(1),
                refresh_ahead: Duration::from_mins(5),
                scheme,
                jti,
            };
            self.behind_layer(&TokenLayer::new(&[account("secret", token)], clock))
        }

        fn behind_layer(
            &self,
            layer: &TokenLayer,
        ) -> impl Service<PageRequest, Response = Page, Error = TokenError> + Clone + use<> {
            let upstream = self.clone();
            layer.layer(service_fn(move |request: AuthorizedRequest| {
                let is_stream_refused = &*request.page.series.stream == REFUSED_STREAM;
                let refused = is_stream_refused || upstream.refused.lock().unwrap().contains(&request.auth);
                let message = known_message("Invalid SDK credentials");
                upstream.seen.lock().unwrap().push(request.auth);
                let page = Page { items: Vec::new(), has_more: false, allowance: None };
                async move { if refused { Err(UpstreamError::Unauthorized { message }) } else { Ok(page) } }
            }))
        }

        /// Number of different tokens since the last call of this function, and number of calls.
        fn tokens(&self) -> (usize, usize) {
            let seen = std::mem::take(&mut *self.seen.lock().unwrap());
            (seen.iter().map(HeaderValue::as_bytes).collect::<std::collections::HashSet<_>>().len(), seen.len())
        }
    }

    fn account(secret: &str, token: config::TokenConfig) -> config::AccountConfig {
        config::AccountConfig {
            account_id: "a".into(),
            client_id: "cs-1".to_owned(),
            client_secret: secret.into(),
            streams: config::NamePatterns::All,
            token,
            limits: Vec::new(),
            window: config::WindowOverrides::default(),
            stream_settings: Vec::new(),
        }
    }

    #[tokio::test]
    async fn rotated_secret_signs_the_next_call() {
        let (upstream, clock) = (Upstream::default(), Clock::manual(Timestamp::from_seconds(0)));
        let (hour, scheme) = (Duration::from_hours(1), TokenScheme::Bare);
        let token = config::TokenConfig { lifetime: hour, refresh_ahead: Duration::ZERO, scheme, jti: JtiMode::Off };
        let layer = TokenLayer::new(&[account("old", token)], &clock);
        let stage = upstream.behind_layer(&layer);
        let call = async || drop(stage.clone().oneshot(request("a")).await.unwrap());
        call().await;
        layer.configure(&[account("old", token)]);
        call().await;
        assert_eq!(upstream.tokens(), (1, 2), "the credential has not changed");
        layer.configure(&[account("new", token)]);
        call().await;
        call().await;
        let seen = upstream.seen.lock().unwrap().clone();
        assert_eq!(upstream.tokens(), (1, 2));
        let expected = mint::mint(&account("new", token), clock.now()).unwrap();
        assert_eq!(seen[0].to_str().unwrap(), expected.token.expose_secret());
        // The runs of an account that is gone end.
        layer.configure(&[]);
        call().await;
    }

    fn request(account: &str) -> PageRequest {
        let (account, stream, filter, parameters) = (account.into(), "s".into(), Filter::None, Vec::new());
        PageRequest {
            series: Arc::new(Series { account, stream, filter, parameters, agentic: false }),
            bounds: UpperBound::Inclusive.query_for(Interval::default()),
            offset: 0,
            limit: 100,
            waiters: RunWaiters::new(Requester::anyone()),
        }
    }

    #[tokio::test]
    async fn one_token_serves_all_calls_until_renewal() {
        let (upstream, clock) = (Upstream::default(), Clock::manual(Timestamp::from_seconds(0)));
        let stage = upstream.behind(JtiMode::Off, TokenScheme::Bare, &clock);
        let call = async || drop(stage.clone().oneshot(request("a")).await.unwrap());
        call().await;
        clock.set(Timestamp::from_seconds(55 * 60 - 1));
        futures_util::future::join_all((0..50).map(|_| call())).await;
        assert_eq!(upstream.tokens(), (1, 51));
        // Renewed ahead of its expiry, by one of many concurrent calls.
        clock.set(Timestamp::from_seconds(55 * 60));
        futures_util::future::join_all((0..50).map(|_| call())).await;
        assert_eq!(upstream.tokens(), (1, 50));
    }

    #[tokio::test]
    async fn refused_token_is_not_reused() {
        let (upstream, clock) = (Upstream::default(), Clock::manual(Timestamp::from_seconds(0)));
        let stage = upstream.behind(JtiMode::Off, TokenScheme::Bearer, &clock);
        stage.clone().oneshot(request("a")).await.unwrap();
        let token = upstream.seen.lock().unwrap()[0].clone();
        assert!(token.as_bytes().starts_with(b"Bearer ey") && token.is_sensitive());
        upstream.refused.lock().unwrap().push(token);
        // In the second in which it was signed.
        assert!(stage.clone().oneshot(request("a")).await.is_err());
        stage.clone().oneshot(request("a")).await.expect("a new token");
    }

    #[tokio::test]
    async fn refusal_of_one_stream_is_told_from_one_of_the_credential() {
        let clock = Clock::manual(Timestamp::from_seconds(0));
        let stage = Upstream::default().behind(JtiMode::Off, TokenScheme::Bare, &clock);
        let call = async |stream: &str| {
            let request = request("a");
            let series = Series { stream: stream.into(), ..Series::clone(&request.series) };
            stage.clone().oneshot(PageRequest { series: series.into(), ..request }).await
        };
        assert!(matches!(call(REFUSED_STREAM).await, Err(TokenError::Upstream(_))), "nothing is known of others");
        call("s").await.unwrap();
        let Err(refused) = call(REFUSED_STREAM).await else { panic!("accepted") };
        let text = "the upstream refused this stream with 401 Unauthorized: \"Invalid SDK credentials\", but accepts the \
                    same credential for another stream";
        assert_eq!((refused.to_string().as_str(), refused.again()), (text, RetryHint::Once));
    }

    #[tokio::test]
    async fn enforced_jti_gives_each_call_its_token() {
        let (upstream, clock) = (Upstream::default(), Clock::manual(Timestamp::from_seconds(0)));
        let stage = upstream.behind(JtiMode::PerRequest, TokenScheme::Bare, &clock);
        for _ in 0..5 {
            stage.clone().oneshot(request("a")).await.unwrap();
        }
        assert_eq!(upstream.tokens(), (5, 5));
        assert!(matches!(stage.clone().oneshot(request("b")).await, Err(TokenError::UnknownAccount)));
    }
}
