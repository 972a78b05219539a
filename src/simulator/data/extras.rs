//! Playbooks, coaching, and the activities that only `includeAgenticData=true` brings.

use super::pen::Pen;
use super::render::Facts;
use super::words;

/// The member `playbookRuntimeData`.
pub(super) fn playbooks(pen: &mut Pen<'_>, facts: &Facts) {
    let books = pen.rng.u8(..2);
    pen.key("playbookRuntimeData").array(|pen| {
        for _ in 0..books {
            let at = facts.moment(&mut pen.rng);
            pen.object(|pen| {
                pen.key("_id").id("playbookRuntime-");
                pen.key("playbookId").id("acl-");
                pen.key("type").string("primary");
                pen.key("triggerType").string("auto");
                let language = pen.language.code();
                pen.key("language").string(language);
                pen.key("order").string("sequential");
                pen.key("openedAt").time(at);
                pen.key("closedAt").time(at + 48_033);
                let (steps, rate) = (pen.rng.u32(..9), pen.pick(&["100", "87.50", "1e2", "33.333333333333336", "0"]));
                pen.key("adheredSteps").number(steps);
                pen.key("adherenceRate").raw(rate);
                pen.key("stages").raw("[]");
                pen.key("totalStages").raw(r#"{"stage-1":3}"#);
            });
        }
    });
}

/// The member `coachingRuntimeData`.
pub(super) fn coachings(pen: &mut Pen<'_>, facts: &Facts) {
    let rules = pen.rng.u8(..2);
    pen.key("coachingRuntimeData").array(|pen| {
        for _ in 0..rules {
            let at = facts.moment(&mut pen.rng);
            pen.object(|pen| {
                let (kind, adhered) = (pen.pick(&["nudge", "hint"]), pen.rng.bool());
                pen.key("_id").id("coachingRuntime-");
                pen.key("ruleId").id("acr-");
                pen.key("ruleName").string("Greeting Compliance");
                pen.key("messageId").id("ms-");
                pen.key("triggeredAt").time(at);
                pen.key("actionType").string(kind);
                pen.key("actionId").id("action-");
                pen.key("expression").string("positive");
                pen.key("message").object(|pen| {
                    pen.key("title").string("Use Standard Greeting");
                    pen.key("body").talk(60);
                });
                pen.key("emails").raw("[]");
                pen.key("adherence").raw(r#"{"criteria":"Greeting template used"}"#);
                pen.key("isAdhered").bool(adhered);
                if adhered {
                    pen.key("adheredAt").time(at + 17_000);
                }
            });
        }
    });
}

/// The member `agenticActivities`.
pub(super) fn agentic_activities(pen: &mut Pen<'_>, facts: &Facts) {
    let activities = pen.rng.u8(..3);
    pen.key("agenticActivities").array(|pen| {
        for _ in 0..activities {
            let at = facts.moment(&mut pen.rng);
            pen.object(|pen| activity(pen, facts, at));
        }
    });
}

fn activity(pen: &mut Pen<'_>, facts: &Facts, at: i64) {
    pen.key("utterance").talk(80);
    pen.key("requestId").id("aa-");
    pen.key("requestTime").time(at);
    pen.key("reqStatus").string("200");
    pen.key("response").array(|pen| {
        pen.object(|pen| {
            pen.key("type").string("suggestion");
            pen.key("content").talk(200);
        });
    });
    pen.key("responseTime").time(at + 1_200);
    pen.key("resStatus").number(200u32);
    pen.key("sessionInfo").object(|pen| {
        if let Some(id) = facts.item.session_id(facts.seed) {
            pen.key("botSessionID").string(&id);
        }
    });
    pen.key("participantId").id("participant-");
    pen.key("streaming").bool(false);
    let (used, topic) = (pen.pick(&["send", "Sent", "copy"]), pen.pick(words::INTENTS));
    pen.key("usageDetails").object(|pen| pen.key("usedType").string(used));
    pen.key("feedback").object(|pen| {
        pen.key("response").string("up");
        pen.key("topic").string(topic);
    });
}
