//! The bytes of an item, in the form of Kore's published sample, with the deviations that real responses have.

use fastrand::Rng;

use super::VisibleItem;
use super::item::{TimelineItem, agent_id};
use super::json_writer::{JsonWriter, Spelling};
use super::sentences::Language;
use super::{actions, hash, runtime_data, vocabulary};

/// Appends one item. `agentic` inserts `agenticActivities` and leaves every other byte unchanged. `plain` is that of the
/// [profile](crate::Profile).
pub(super) fn render((seed, plain): (u64, bool), state: VisibleItem, agentic: bool, out: &mut Vec<u8>) {
    let VisibleItem { item, version, edits, .. } = state;
    let item_seed = hash(seed ^ 0x6279_7465, item.key);
    let language = Language::draw(item_seed);
    let spelling = match (plain, (item_seed >> 32).is_multiple_of(32)) {
        (true, _) => Spelling::Plain,
        (false, true) => Spelling::Spaced,
        (false, false) => Spelling::Compact,
    };
    let begin = out.len();
    let mut json = JsonWriter::new(out, Rng::with_seed(item_seed), language, spelling);
    let context = ItemContext { seed, item, version, edits, target_size: draw_size(&mut json.rng), begin };
    let middle = write_item(&mut json, &context);

    if agentic {
        // Drawn from a separate generator, so that the rest of the item does not depend on this member.
        let mut activities = Vec::with_capacity(2_048);
        activities.push(b',');
        let mut json = JsonWriter::new(&mut activities, Rng::with_seed(!item_seed), language, spelling);
        runtime_data::write_agentic_activities(&mut json, &context);
        let is_in_the_middle = (item_seed >> 40).is_multiple_of(4);
        let at = if is_in_the_middle { middle } else { out.len().saturating_sub(1) };
        out.splice(at..at, activities);
    }
}

/// The properties of an item that its members must agree on.
pub(super) struct ItemContext {
    pub(super) seed: u64,
    pub(super) item: TimelineItem,
    version: u32,
    edits: u32,
    /// The offset of the item in the buffer.
    begin: usize,
    /// The approximate size of the item in bytes.
    target_size: usize,
}

impl ItemContext {
    /// A random time within the segment, in milliseconds since the epoch.
    pub(super) fn random_time(&self, rng: &mut Rng) -> i64 {
        self.item.start + rng.i64(0..self.item.duration_ms(self.seed).unwrap_or(600_000).max(1))
    }

    /// Whether the item is smaller than `percent` of its target size.
    fn is_below(&self, json: &JsonWriter<'_>, percent: usize) -> bool {
        (json.out.len() - self.begin) * 100 < self.target_size * percent
    }
}

/// Draws the size of an item: mostly 4 to 8 KB, sometimes 2 KB or nearly 30 KB.
fn draw_size(rng: &mut Rng) -> usize {
    match rng.u8(..100) {
        ..12 => rng.usize(2_000..4_000),
        12..90 => rng.usize(4_200..7_800),
        90..98 => rng.usize(8_000..15_000),
        _ => rng.usize(15_000..28_000),
    }
}

/// Writes the item without its agentic activities. Returns the offset after one of its middle members.
fn write_item(json: &mut JsonWriter<'_>, context: &ItemContext) -> usize {
    let mut middle = json.out.len();
    let ItemContext { seed, item, version, .. } = *context;
    json.object(|json| {
        json.key("conversationID").string(&item.conversation_id(seed));
        if let Some(id) = item.session_id(seed) {
            json.key("botSessionID").string(&id);
        }
        json.key("channel").string(item.channel(seed));
        json.key("segmentID").string(&item.segment_id(seed));
        write_agent(json, context);
        write_tags(json, context);
        json.key("segmentStartTime").time(item.start);
        json.key("segmentEndTime");
        match item.end(seed, version) {
            Some(end) => json.time(end),
            None => json.raw("null"),
        }
        json.key("agentActions").array(|json| {
            while context.is_below(json, 45) {
                actions::write_agent_action(json, context);
            }
        });
        middle = json.out.len();
        json.key("proActiveSuggestions").array(|json| {
            while context.is_below(json, 75) {
                actions::write_proactive_suggestion(json, context);
            }
        });
        json.key("queueInfo").object(|json| {
            let queue = json.pick(vocabulary::QUEUES);
            json.key("queueId").id("qu-");
            json.key("queueName").string(queue);
        });
        write_counts(json, context);
        runtime_data::write_playbooks(json, context);
        runtime_data::write_coachings(json, context);
        write_undocumented(json, context);
    });
    middle
}

fn write_agent(json: &mut JsonWriter<'_>, context: &ItemContext) {
    let number = context.item.agent(context.seed);
    let name = |list: &[&'static str], salt| {
        let index = usize::try_from(hash(salt, number)).unwrap_or(usize::MAX) % list.len().max(1);
        list.get(index).copied().unwrap_or_default()
    };
    let (first, last) = (name(vocabulary::FIRST_NAMES, 1), name(vocabulary::LAST_NAMES, 2));
    json.key("agent").object(|json| {
        json.key("firstName").string(first);
        json.key("lastName").string(last);
        json.key("email").string(&format!("agent{number:02}@example.com"));
        json.key("name").string(&format!("{first} {last}"));
        json.key("agentId").string(&agent_id(context.seed, number));
    });
}

fn write_tags(json: &mut JsonWriter<'_>, context: &ItemContext) {
    json.key("tags").array(|json| {
        for _ in 0..json.rng.u8(..3) {
            let at = context.random_time(&mut json.rng);
            json.object(|json| {
                let (kind, value) = (json.pick(&["message", "user", "session"]), json.pick(vocabulary::INTENTS));
                json.key("type").string(kind);
                json.key("name").string("intent");
                json.key("value").string(value);
                json.key("messageID").id("ms-");
                json.key("createdAt").time(at);
            });
        }
    });
}

fn write_counts(json: &mut JsonWriter<'_>, context: &ItemContext) {
    let (up, down, read) = (json.rng.u32(..40), json.rng.u32(..60), json.rng.bool());
    json.key("countScrollUp").number(up);
    json.key("countScrollDn").number(down);
    json.key("isWelcomeMsgRead").bool(read);
    json.key("linksClicked").array(|json| {
        for _ in 0..json.rng.u8(..3) {
            let at = context.random_time(&mut json.rng);
            json.object(|json| {
                let page = json.pick(&["help", "refund", "returns?lang=de\\u0026v=2", "faq#7", "tarif/überblick"]);
                json.key("url").string(&format!("https://example.com/{page}"));
                json.key("timestamp").time(at);
            });
        }
    });
}

/// Members of real responses that Kore's documentation does not mention.
fn write_undocumented(json: &mut JsonWriter<'_>, context: &ItemContext) {
    if json.one_in(3) {
        json.key("summary").text(400);
    }
    let ItemContext { version, edits, .. } = *context;
    json.key("appInfo").object(|json| {
        let host = json.pick(&["widget", "Genesys", "Zendesk", "Salesforce", "NICE CXone"]);
        json.key("host").string(host);
        // Together with the end time, this distinguishes the versions of an item.
        json.key("revision").number(version + edits);
        if json.is_plain() {
            json.key("score").raw("0.75");
            json.key("sequence").raw("7");
            return;
        }
        if json.one_in(2) {
            json.key("score").raw("1.0");
            json.key("weight").raw("1e2");
            json.key("sequence").raw("12345678901234567890");
            json.key("delta").raw("-0");
        }
        if json.one_in(8) {
            json.key("ratio").raw("0.30000000000000004");
            json.key("tiny").raw("-1.50E-07");
            json.key("sequence").raw("7");
            json.key("").raw("{}");
        }
    });
    if edits > 0 {
        json.key("agenticFeedback").number(edits);
    }
}
