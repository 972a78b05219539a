//! Turns for pages that a walk asks for before it gets there: they cost what others cost, and keep nobody waiting.

use std::sync::Arc;
use std::time::Duration;

use super::{Exhausted, NoTurn, Turn, Turns};
use crate::quota::common::Pass;
use crate::quota::ledger::usable;
use crate::quota::role::Role;
use crate::upstream::Demand;

/// The share of each limit that such calls leave alone, whoever wants them: one of them may turn out to be of no use, and
/// where little is left, none is to be wasted.
const LEFT_ALONE: f64 = 0.2;
/// An exchange with the other replicas takes some milliseconds; such a call waits for no more than a few of them.
const LOOKS: u32 = 5;
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// Whether such a call may go.
enum Room {
    Yes(Turn),
    /// Perhaps soon: the other replicas are being asked.
    Soon,
    No(NoTurn),
}

impl Turns {
    /// A turn for a call that may go at once, with quota to spare and nobody waiting for a turn. So it never stands in
    /// the queue, and whoever comes into the queue has the next turn that comes free.
    ///
    /// # Errors
    /// [`NoTurn::Exhausted`] if it would have to wait, or little is left; else as [`Turns::take`].
    pub async fn take_ahead(self: &Arc<Self>, demand: &Arc<Demand>) -> Result<Turn, NoTurn> {
        for _ in 0..LOOKS {
            match self.room_ahead(demand) {
                Room::Yes(turn) => return Ok(turn),
                Room::Soon => tokio::time::sleep(BETWEEN_LOOKS).await,
                Room::No(why) => return Err(why),
            }
        }
        Err(NO_ROOM)
    }

    fn room_ahead(self: &Arc<Self>, demand: &Arc<Demand>) -> Room {
        let mut state = self.lock();
        let (now, class) = (self.now(), demand.class());
        if let Some(common) = &state.common
            && let Role::Follows(_) = common.role(now)
        {
            return Room::No(NoTurn::Elsewhere);
        }
        let (reserve, at_once) = (self.reserve(class), usable(self.max_concurrency, self.reserve(class)));
        let free = state.ledger.free_at(now, 0, reserve.max(LEFT_ALONE)).max(state.closed_until);
        let outlook = state.ledger.outlook(now, reserve);
        let paced = state.pace(class).map_or(now, |pace| pace.admits_at(outlook));
        if !state.queue.is_empty() || state.ledger.under_way() >= at_once || free.max(paced) > now {
            return Room::No(NO_ROOM);
        }
        match self.pass(&mut state, now, &demand.cause().caller) {
            Pass::Go(name) => {
                // How long the walk's own calls wait stays what is known of the quota.
                let turn = self.begin(&mut state, demand, class, demand.last_wait(), now, name);
                turn.map_or(Room::No(NoTurn::Unwanted), Room::Yes)
            }
            Pass::Wait(_) => Room::Soon,
            Pass::Elsewhere => Room::No(NoTurn::Elsewhere),
            Pass::NoShare => Room::No(NO_ROOM),
        }
    }
}

/// It has no patience: nobody knows whether it will be needed.
const NO_ROOM: NoTurn = NoTurn::Exhausted(Exhausted { retry_after: Duration::ZERO });
