//! The members `playbookRuntimeData`, `coachingRuntimeData` and `agenticActivities`. The latter is present only with
//! `includeAgenticData=true`.

use super::json_writer::JsonWriter;
use super::render::ItemContext;
use super::vocabulary;

/// Writes the member `playbookRuntimeData`.
pub(super) fn write_playbooks(json: &mut JsonWriter<'_>, context: &ItemContext) {
    let books = json.rng.u8(..2);
    json.key("playbookRuntimeData").array(|json| {
        for _ in 0..books {
            let at = context.random_time(&mut json.rng);
            json.object(|json| {
                json.key("_id").id("playbookRuntime-");
                json.key("playbookId").id("acl-");
                json.key("type").string("primary");
                json.key("triggerType").string("auto");
                let language = json.language.code();
                json.key("language").string(language);
                json.key("order").string("sequential");
                json.key("openedAt").time(at);
                json.key("closedAt").time(at + 48_033);
                let rates: &[&str] = if json.is_plain() {
                    &["100.0", "87.5", "33.3", "0.0"]
                } else {
                    &["100", "87.50", "1e2", "33.333333333333336", "0"]
                };
                let (steps, rate) = (json.rng.u32(..9), json.pick(rates));
                json.key("adheredSteps").number(steps);
                json.key("adherenceRate").raw(rate);
                json.key("stages").raw("[]");
                json.key("totalStages").raw(r#"{"stage-1":3}"#);
            });
        }
    });
}

/// Writes the member `coachingRuntimeData`.
pub(super) fn write_coachings(json: &mut JsonWriter<'_>, context: &ItemContext) {
    let rules = json.rng.u8(..2);
    json.key("coachingRuntimeData").array(|json| {
        for _ in 0..rules {
            let at = context.random_time(&mut json.rng);
            json.object(|json| {
                let (kind, adhered) = (json.pick(&["nudge", "hint"]), json.rng.bool());
                json.key("_id").id("coachingRuntime-");
                json.key("ruleId").id("acr-");
                json.key("ruleName").string("Greeting Compliance");
                json.key("messageId").id("ms-");
                json.key("triggeredAt").time(at);
                json.key("actionType").string(kind);
                json.key("actionId").id("action-");
                json.key("expression").string("positive");
                json.key("message").object(|json| {
                    json.key("title").string("Use Standard Greeting");
                    json.key("body").text(60);
                });
                json.key("emails").raw("[]");
                json.key("adherence").raw(r#"{"criteria":"Greeting template used"}"#);
                json.key("isAdhered").bool(adhered);
                if adhered {
                    json.key("adheredAt").time(at + 17_000);
                }
            });
        }
    });
}

/// Writes the member `agenticActivities`.
pub(super) fn write_agentic_activities(json: &mut JsonWriter<'_>, context: &ItemContext) {
    let activities = json.rng.u8(..3);
    json.key("agenticActivities").array(|json| {
        for _ in 0..activities {
            let at = context.random_time(&mut json.rng);
            json.object(|json| write_activity(json, context, at));
        }
    });
}

fn write_activity(json: &mut JsonWriter<'_>, context: &ItemContext, at: i64) {
    json.key("utterance").text(80);
    json.key("requestId").id("aa-");
    json.key("requestTime").time(at);
    json.key("reqStatus").string("200");
    json.key("response").array(|json| {
        json.object(|json| {
            json.key("type").string("suggestion");
            json.key("content").text(200);
        });
    });
    json.key("responseTime").time(at + 1_200);
    json.key("resStatus").number(200u32);
    json.key("sessionInfo").object(|json| {
        if let Some(id) = context.item.session_id(context.seed) {
            json.key("botSessionID").string(&id);
        }
    });
    json.key("participantId").id("participant-");
    json.key("streaming").bool(false);
    let (used, topic) = (json.pick(&["send", "Sent", "copy"]), json.pick(vocabulary::INTENTS));
    json.key("usageDetails").object(|json| json.key("usedType").string(used));
    json.key("feedback").object(|json| {
        json.key("response").string("up");
        json.key("topic").string(topic);
    });
}
