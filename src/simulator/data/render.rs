//! The bytes of an item, in the shape of Kore's published sample, with the drift of its real answers.

use fastrand::Rng;

use super::Seen;
use super::item::{Item, agent_id};
use super::pen::Pen;
use super::text::Language;
use super::{actions, extras, mix, words};

/// Appends one item. `rich` puts `agenticActivities` in and leaves every other byte as it is.
pub(super) fn item(seed: u64, state: Seen, rich: bool, out: &mut Vec<u8>) {
    let Seen { item, version, edits, .. } = state;
    let own = mix(seed ^ 0x6279_7465, item.key);
    let language = Language::draw(own);
    let loose = (own >> 32).is_multiple_of(32);
    let begin = out.len();
    let mut pen = Pen::new(out, Rng::with_seed(own), language, loose);
    let facts = Facts { seed, item, version, edits, size: size(&mut pen.rng), begin };
    let middle = write(&mut pen, &facts);

    if rich {
        // Written with dice of its own, so that the rest of the item cannot depend on it.
        let mut activities = Vec::with_capacity(2_048);
        activities.push(b',');
        let mut pen = Pen::new(&mut activities, Rng::with_seed(!own), language, loose);
        extras::agentic_activities(&mut pen, &facts);
        let in_the_middle = (own >> 40).is_multiple_of(4);
        let at = if in_the_middle { middle } else { out.len().saturating_sub(1) };
        out.splice(at..at, activities);
    }
}

/// What an item's members have to agree on.
pub(super) struct Facts {
    pub(super) seed: u64,
    pub(super) item: Item,
    version: u32,
    edits: u32,
    /// Where in the buffer the item begins.
    begin: usize,
    /// Bytes to aim at.
    size: usize,
}

impl Facts {
    /// Some moment of the segment, in milliseconds.
    pub(super) fn moment(&self, rng: &mut Rng) -> i64 {
        self.item.start + rng.i64(0..self.item.lasts(self.seed).unwrap_or(600_000).max(1))
    }

    /// Whether `share` percent of the size aimed at are still to be filled.
    fn lacks(&self, pen: &Pen<'_>, share: usize) -> bool {
        (pen.out.len() - self.begin) * 100 < self.size * share
    }
}

/// Mostly 4 to 8 KB; some 2, some nearly 30.
fn size(rng: &mut Rng) -> usize {
    match rng.u8(..100) {
        ..12 => rng.usize(2_000..4_000),
        12..90 => rng.usize(4_200..7_800),
        90..98 => rng.usize(8_000..15_000),
        _ => rng.usize(15_000..28_000),
    }
}

/// Writes the item without its agentic activities; the place after one of its middle members.
fn write(pen: &mut Pen<'_>, facts: &Facts) -> usize {
    let mut middle = pen.out.len();
    let Facts { seed, item, version, .. } = *facts;
    pen.object(|pen| {
        pen.key("conversationID").string(&item.conversation_id(seed));
        if let Some(id) = item.session_id(seed) {
            pen.key("botSessionID").string(&id);
        }
        pen.key("channel").string(item.channel(seed));
        pen.key("segmentID").string(&item.segment_id(seed));
        agent(pen, facts);
        tags(pen, facts);
        pen.key("segmentStartTime").time(item.start);
        pen.key("segmentEndTime");
        match item.end(seed, version) {
            Some(end) => pen.time(end),
            None => pen.raw("null"),
        }
        pen.key("agentActions").array(|pen| {
            while facts.lacks(pen, 45) {
                actions::agent_action(pen, facts);
            }
        });
        middle = pen.out.len();
        pen.key("proActiveSuggestions").array(|pen| {
            while facts.lacks(pen, 75) {
                actions::proactive_suggestion(pen, facts);
            }
        });
        pen.key("queueInfo").object(|pen| {
            let queue = pen.pick(words::QUEUES);
            pen.key("queueId").id("qu-");
            pen.key("queueName").string(queue);
        });
        counts(pen, facts);
        extras::playbooks(pen, facts);
        extras::coachings(pen, facts);
        undocumented(pen, facts);
    });
    middle
}

fn agent(pen: &mut Pen<'_>, facts: &Facts) {
    let number = facts.item.agent(facts.seed);
    let name = |list: &[&'static str], salt| {
        let index = usize::try_from(mix(salt, number)).unwrap_or(usize::MAX) % list.len().max(1);
        list.get(index).copied().unwrap_or_default()
    };
    let (first, last) = (name(words::FIRST_NAMES, 1), name(words::LAST_NAMES, 2));
    pen.key("agent").object(|pen| {
        pen.key("firstName").string(first);
        pen.key("lastName").string(last);
        pen.key("email").string(&format!("agent{number:02}@example.com"));
        pen.key("name").string(&format!("{first} {last}"));
        pen.key("agentId").string(&agent_id(facts.seed, number));
    });
}

fn tags(pen: &mut Pen<'_>, facts: &Facts) {
    pen.key("tags").array(|pen| {
        for _ in 0..pen.rng.u8(..3) {
            let at = facts.moment(&mut pen.rng);
            pen.object(|pen| {
                let (kind, value) = (pen.pick(&["message", "user", "session"]), pen.pick(words::INTENTS));
                pen.key("type").string(kind);
                pen.key("name").string("intent");
                pen.key("value").string(value);
                pen.key("messageID").id("ms-");
                pen.key("createdAt").time(at);
            });
        }
    });
}

fn counts(pen: &mut Pen<'_>, facts: &Facts) {
    let (up, down, read) = (pen.rng.u32(..40), pen.rng.u32(..60), pen.rng.bool());
    pen.key("countScrollUp").number(up);
    pen.key("countScrollDn").number(down);
    pen.key("isWelcomeMsgRead").bool(read);
    pen.key("linksClicked").array(|pen| {
        for _ in 0..pen.rng.u8(..3) {
            let at = facts.moment(&mut pen.rng);
            pen.object(|pen| {
                let page = pen.pick(&["help", "refund", "returns?lang=de\\u0026v=2", "faq#7", "tarif/überblick"]);
                pen.key("url").string(&format!("https://example.com/{page}"));
                pen.key("timestamp").time(at);
            });
        }
    });
}

/// What real answers hold and no page of Kore's names.
fn undocumented(pen: &mut Pen<'_>, facts: &Facts) {
    if pen.once_in(3) {
        pen.key("summary").talk(400);
    }
    let Facts { version, edits, .. } = *facts;
    pen.key("appInfo").object(|pen| {
        let host = pen.pick(&["widget", "Genesys", "Zendesk", "Salesforce", "NICE CXone"]);
        pen.key("host").string(host);
        // With the end time, what tells versions of an item apart.
        pen.key("revision").number(version + edits);
        if pen.once_in(2) {
            pen.key("score").raw("1.0");
            pen.key("weight").raw("1e2");
            pen.key("sequence").raw("12345678901234567890");
            pen.key("delta").raw("-0");
        }
        if pen.once_in(8) {
            pen.key("ratio").raw("0.30000000000000004");
            pen.key("tiny").raw("-1.50E-07");
            pen.key("sequence").raw("7");
            pen.key("").raw("{}");
        }
    });
    if edits > 0 {
        pen.key("agenticFeedback").number(edits);
    }
}
