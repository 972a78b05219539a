//! `POST /purge`: the purge of the status page, in two steps. The first one says what will be removed and asks.

use std::error::Error as StdError;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::Full;

use super::refused::Refused;
use super::report::PurgeEffect;
use super::request::PurgeRequest;
use super::{PurgeOrder, read_body};
use crate::admin::access::AdminRequester;
use crate::admin::page::{self, PurgeQuestion};
use crate::admin::response::html;
use crate::admin::state::Admin;
use crate::blocking::spawn_work;
use crate::cache::CoverageQuery;
use crate::problem::ProblemType;

/// Path of the form.
pub(in crate::admin) const FORM_PATH: &str = "/purge";
/// Days in which the confirmation counts those with cached data.
const COUNTED_DAYS: u32 = 400;
/// Streams in which it does.
const COUNTED_STREAMS: usize = 100;

/// The fields of the form. Empty ones are left out.
struct PurgeForm {
    csrf: Option<String>,
    is_confirmed: bool,
    /// The parameters of the purge, as a query.
    query: String,
}

impl PurgeForm {
    fn read(body: &[u8]) -> Self {
        let mut form = Self { csrf: None, is_confirmed: false, query: String::new() };
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in form_urlencoded::parse(body).filter(|(_, value)| !value.trim().is_empty()) {
            match &*name {
                "csrf" => form.csrf = Some(value.into_owned()),
                "confirm" => form.is_confirmed = value == "yes",
                _ => drop(query.append_pair(&name, value.trim())),
            }
        }
        form.query = query.finish();
        form
    }
}

impl Admin {
    /// Asks for a confirmation, or purges if it is confirmed.
    pub(in crate::admin) async fn purge_by_form<B>(
        &self,
        request: Request<B>,
        requester: AdminRequester,
    ) -> Response<Full<Bytes>>
    where
        B: Body,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        match self.purge_step(&head.headers, body, requester).await {
            Ok(page) => html(StatusCode::OK, page),
            Err(refused) => {
                let status = match refused.kind() {
                    ProblemType::Forbidden => StatusCode::FORBIDDEN,
                    _ => StatusCode::BAD_REQUEST,
                };
                html(status, page::purge_refused(&refused.to_string()))
            }
        }
    }

    async fn purge_step<B>(&self, headers: &HeaderMap, body: B, requester: AdminRequester) -> Result<String, Refused>
    where
        B: Body,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let form = PurgeForm::read(&read_body(body).await?);
        let access = &self.0.access;
        access.check_change(requester, headers, form.csrf.as_deref()).map_err(|_| Refused::Forged)?;
        let order = self.order(PurgeRequest::read(&form.query, b"")?, requester)?;
        if !form.is_confirmed {
            let cached_days = self.count_cached_days(&order).await;
            let PurgeRequest { stream, from, to, .. } = order.request;
            let account = order.accounts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let csrf = access.csrf_of(requester).to_string();
            return Ok(page::confirm_purge(&PurgeQuestion { account, stream, from, to, cached_days, csrf }));
        }
        let effects = self.perform(order).await?.effects;
        let left: Vec<String> = effects.iter().flat_map(|effect| effect.remote.left.clone()).collect();
        Ok(page::purge_result(&describe(&effects), &left))
    }

    /// The number of days with cached data of what an order removes, in the memory and on the disk of this replica.
    async fn count_cached_days(&self, order: &PurgeOrder) -> usize {
        let now = self.0.clock.now();
        let days = crate::admin::views::calendar::last_days(now, COUNTED_DAYS);
        let (handles, accounts) = (self.0.handles.clone(), order.accounts.clone());
        let (stream, interval) = (order.request.stream.clone(), order.interval.intersection(days));
        let look = spawn_work(move || {
            let mut dates = std::collections::BTreeSet::new();
            for account in &accounts {
                let (account, stream) = (Some(&**account), stream.as_deref());
                let query = CoverageQuery { account, stream, interval, max_streams: COUNTED_STREAMS };
                for stream in handles.cache.coverage(&handles.series_settings, query).streams {
                    for set in [&stream.memory, &stream.disk, &stream.open] {
                        dates.extend(crate::admin::views::calendar::dates(set, interval));
                    }
                }
            }
            dates.len()
        });
        look.await.unwrap_or_default()
    }
}

/// The data that a purge has removed, in words.
fn describe(effects: &[PurgeEffect]) -> String {
    let memory: usize = effects.iter().map(|effect| effect.memory_chunks).sum();
    let disk = effects.iter().filter_map(|effect| effect.disk_chunks).sum::<u64>();
    let redis = effects.iter().filter_map(|effect| effect.remote.redis_chunks).sum::<u64>();
    let replicas: usize = effects
        .iter()
        .filter_map(|effect| effect.remote.replicas)
        .map(|replicas| replicas.confirmed)
        .max()
        .unwrap_or(0);
    format!("{memory} chunks of memory, {disk} of disk and {redis} of Redis; {replicas} other replicas have confirmed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_fields_are_left_out_and_none_is_dropped() {
        let form = PurgeForm::read(b"csrf=c&account=a&stream=+&from=&to=2026-02-23&confirm=yes&form=x");
        assert_eq!((form.csrf.as_deref(), form.is_confirmed), (Some("c"), true));
        assert_eq!(form.query, "account=a&to=2026-02-23&form=x");
        assert!(PurgeRequest::read(&form.query, b"").is_err(), "an unknown field is refused");
        assert!(!PurgeForm::read(b"confirm=no").is_confirmed);
    }
}
