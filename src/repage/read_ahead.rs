//! Pages of a walk that are asked for before the walk gets there.
//!
//! They are fed to the walk in the order of their offsets, and count for its proof as all others do, with one difference:
//! only a full page that promises more is taken. So the page that ends a walk is one that the walk itself has asked for,
//! after all others had come, and as many rows were there then as it tells. Were it asked for too early, a row could
//! arrive in front of a page that comes later, and push another out between the two, and nothing would tell.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;
use tower::{Service, ServiceExt as _};

use super::Run;
use super::ahead::Course;
use super::item::Item;
use super::places::Place;
use crate::quota::QuotaError;
use crate::upstream::{PAGE_LIMIT, Page, PageRequest};
use crate::window::{QueryBounds, Span};

/// Where pages come as quickly as this, there is too little to gain: sixty of them, a minute's usual quota, take no four
/// seconds one after the other.
const QUICK: Duration = Duration::from_millis(60);
/// Of so many pages, the quickest says how quick the upstream is: others may have waited for this machine.
const LOOKED_AT: usize = 8;

/// The pages of one walk that lie ahead of it.
pub(super) struct ReadAhead<'a, S> {
    below: &'a S,
    run: &'a Run,
    /// Says how much may be under way at once; `None` if nothing is to be asked for ahead.
    place: Option<&'a Place>,
    field: &'a str,
    course: Course,
    /// So many calls may be under way at once, the walk's own included. Less after one has failed or had no room, and
    /// one more with each page that comes.
    most: usize,
    /// Full pages with more behind them, and how long each took, if only its part of the time is counted.
    came: BTreeMap<u64, (Page, Duration)>,
    /// The offsets of the pages that are under way.
    asked: BTreeSet<u64>,
    under_way: FuturesUnordered<BoxFuture<'static, (u64, Option<Landed>)>>,
    /// How long the last pages took.
    took: VecDeque<Duration>,
    held_back: bool,
}

/// What became of a call, and how long it took.
type Landed = (Result<Page, QuotaError>, Duration);

impl<'a, S> ReadAhead<'a, S>
where
    S: Service<PageRequest, Response = Page, Error = QuotaError> + Clone + Send + 'static,
    S::Future: Send,
{
    /// Nothing has come yet of a walk over `span`. `field` names the items' timestamp.
    pub(super) fn new(below: &'a S, run: &'a Run, place: Option<&'a Place>, field: &'a str, span: Span) -> Self {
        let (came, asked, under_way, took) = Default::default();
        let course = Course::new(span);
        Self { below, run, place, field, course, most: usize::MAX, came, asked, under_way, took, held_back: false }
    }

    /// Whether there are pages that the walk has not got to yet.
    pub(super) fn is_reading(&self) -> bool {
        !self.came.is_empty() || !self.asked.is_empty()
    }

    /// Whether a page is under way.
    pub(super) fn is_waiting(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Whether the page at this offset is under way.
    pub(super) fn is_asked(&self, offset: u64) -> bool {
        self.asked.contains(&offset)
    }

    /// How many pages are under way.
    pub(super) fn under_way(&self) -> u32 {
        u32::try_from(self.asked.len()).unwrap_or(u32::MAX)
    }

    /// Whether to ask for nothing now, so that the walk comes to where nothing lies ahead of it.
    pub(super) fn hold_back(&mut self, held_back: bool) {
        self.held_back = held_back;
    }

    /// The walk goes on with a part of its span; nothing is under way.
    pub(super) fn narrow(&mut self, span: Span) {
        self.course.narrow(span);
    }

    /// The page at this offset, if it has come, and how long it took.
    pub(super) fn take(&mut self, offset: u64) -> Option<(Page, Duration)> {
        self.came.remove(&offset)
    }

    /// The walk's own page at this offset has come.
    pub(super) fn saw(&mut self, offset: u64, page: &Page, took: Duration) {
        if self.place.is_some() {
            self.learn(offset, page, took);
        }
    }

    /// Asks for pages behind the one at `offset`, while `own` calls of the walk itself are under way: as many as may be
    /// under way, and as there are full ones, most likely.
    pub(super) fn ask(&mut self, bounds: QueryBounds, offset: u64, own: usize) {
        let Some(place) = self.place.filter(|_| !self.held_back) else { return };
        if self.took.iter().min().is_none_or(|quickest| *quickest < QUICK) {
            return;
        }
        let width = place.width();
        let (rows, page) = (self.course.rows_at_least(), u64::from(PAGE_LIMIT));
        let mut next = offset + page;
        // What has come and cannot be used yet is bounded too.
        while self.asked.len() + own < width.min(self.most) && self.asked.len() + self.came.len() < 2 * width {
            if !self.asked.contains(&next) && !self.came.contains_key(&next) {
                if next + page >= rows {
                    break;
                }
                self.ask_for(bounds, next);
            }
            next += page;
        }
    }

    fn ask_for(&mut self, bounds: QueryBounds, offset: u64) {
        let (series, demand) = (self.run.series.clone(), self.run.demand.clone());
        let request = PageRequest { series, bounds, offset, limit: PAGE_LIMIT, demand, ahead: true };
        let below = self.below.clone();
        // A task of its own: a call that was made is made to its end and counted, though nobody may wait for it any more.
        let call = tokio::spawn(async move {
            let asked = Instant::now();
            (below.oneshot(request).await, asked.elapsed())
        });
        self.asked.insert(offset);
        self.under_way.push(Box::pin(async move { (offset, call.await.ok()) }));
    }

    /// Waits until one of the pages that are under way has come, or has failed.
    pub(super) async fn land(&mut self) {
        let Some((offset, landed)) = self.under_way.next().await else { return };
        let at_once = self.under_way().max(1);
        self.asked.remove(&offset);
        match landed {
            Some((Ok(page), took)) => {
                self.learn(offset, &page, took);
                if self.place.is_some() && is_full(&page) && page.has_more {
                    self.came.insert(offset, (page, took / at_once));
                }
            }
            // There was no room for it; there was for those that are under way.
            Some((Err(QuotaError::Exhausted(_)), _)) => self.most = self.asked.len(),
            // If that matters, the walk finds out when it gets there.
            Some((Err(_), _)) | None => self.most = 1,
        }
    }

    fn learn(&mut self, offset: u64, page: &Page, took: Duration) {
        self.most = self.most.saturating_add(1);
        self.took.push_back(took);
        if self.took.len() > LOOKED_AT {
            self.took.pop_front();
        }
        if !page.has_more {
            return self.course.ended(offset, page.items.len());
        }
        let at = |item| Item::read(item, self.field).0;
        let ends = page.items.first().and_then(at).zip(page.items.last().and_then(at));
        match ends.filter(|_| is_full(page)) {
            Some((first, last)) => self.course.came(offset, first, last),
            // It ends where none was thought to end: what was asked for behind it begins elsewhere than the walk goes on.
            None => self.give_up(),
        }
    }

    /// From now on the walk is alone.
    fn give_up(&mut self) {
        self.place = None;
        self.came.clear();
        self.asked.clear();
        self.under_way.clear();
    }
}

fn is_full(page: &Page) -> bool {
    page.items.len() == PAGE_LIMIT as usize
}
