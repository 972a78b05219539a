//! The members `agentActions` and `proActiveSuggestions`, which make up most of an item's size.

use super::json_writer::JsonWriter;
use super::render::ItemContext;
use super::vocabulary;

/// Writes an element of `agentActions`.
pub(super) fn write_agent_action(json: &mut JsonWriter<'_>, context: &ItemContext) {
    let at = context.random_time(&mut json.rng);
    json.object(|json| {
        let kind = json.pick(&["SearchBarEntry", "SearchBarEntry", "LibrarySelection"]);
        json.key("actionType").string(kind);
        if !json.one_in(9) {
            json.key("action").object(|json| write_search(json, at));
        }
        let uses = json.rng.u8(..3);
        json.key("used").array(|json| {
            for _ in 0..uses {
                write_usage(json, at + 8_000);
            }
        });
    });
}

/// Writes an element of `proActiveSuggestions`.
pub(super) fn write_proactive_suggestion(json: &mut JsonWriter<'_>, context: &ItemContext) {
    let at = context.random_time(&mut json.rng);
    json.object(|json| {
        json.key("utterance").text(90);
        json.key("suggestions");
        write_suggestions(json);
        if !json.one_in(7) {
            json.key("displayTime").time(at);
        }
        write_display_counts(json);
        let uses = json.rng.u8(..2);
        json.key("used").array(|json| {
            for _ in 0..uses {
                write_usage(json, at + 5_000);
            }
        });
    });
}

fn write_search(json: &mut JsonWriter<'_>, at: i64) {
    json.key("searchPhrase").text(30);
    json.key("typingStartTime").time(at);
    json.key("executionStartTime").time(at + 380);
    if !json.one_in(7) {
        json.key("displayTime").time(at + 1_880);
    }
    let shown = json.rng.u8(1..4);
    json.key("suggestionsShown").array(|json| {
        for _ in 0..shown {
            json.text(20);
        }
    });
    let picked = json.rng.u32(..=u32::from(shown));
    json.key("suggestionUsed").number(picked);
    json.key("phraseInput").text(25);
    let (presented, accepted) = (json.rng.u32(..4), json.rng.u32(..2));
    json.key("correctionsPresented").number(presented);
    json.key("correctionsAccepted").number(accepted);
    write_display_counts(json);
    json.key("suggestions");
    write_suggestions(json);
}

fn write_display_counts(json: &mut JsonWriter<'_>) {
    let (tasks, answers) = (json.rng.u32(..3), json.rng.u32(..3));
    json.key("countDisplayedAnswers").object(|json| {
        json.key("countDialogTasks").number(tasks);
        json.key("countFaqs").number(0u32);
        json.key("countAnswers").number(answers);
        json.key("countFiles").number(0u32);
        json.key("countWebPages").number(0u32);
        json.key("countFromNonNativeDataSource").number(0u32);
    });
}

fn write_suggestions(json: &mut JsonWriter<'_>) {
    let (dialogs, answers) = (json.rng.u8(..3), json.rng.u8(..2));
    json.object(|json| {
        json.key("dialogs").array(|json| {
            for _ in 0..dialogs {
                let name = json.pick(vocabulary::DIALOGS);
                json.object(|json| json.key("name").string(name));
            }
        });
        json.key("answers").array(|json| {
            for _ in 0..answers {
                write_answer(json);
            }
        });
    });
}

fn write_answer(json: &mut JsonWriter<'_>) {
    let bytes = json.rng.usize(120..500);
    json.object(|json| {
        json.key("content").text(bytes);
        json.key("positionId").id("dg-");
        json.key("sources").array(|json| {
            let title = json.pick(vocabulary::TITLES);
            json.object(|json| {
                json.key("title").string(title);
                json.key("url").string("https://example.com/knowledge");
            });
        });
        json.key("internalFlag").bool(false);
    });
}

fn write_usage(json: &mut JsonWriter<'_>, at: i64) {
    json.object(|json| {
        json.key("targetType").string("Answer");
        json.key("target").object(|json| {
            json.key("answer").object(|json| {
                // Real responses contain both spellings of the key, and all of these spellings of the status.
                let (status, more) = (json.pick(&["Sent", "send", "Copied"]), json.one_in(4));
                let key = json.pick(&["showMoreClicked", "showmoreClicked"]);
                let key = if json.is_plain() { "showMoreClicked" } else { key };
                json.key("status").string(status);
                json.key("usedTime").time(at);
                json.key(key).bool(more);
                json.key("answerLinkClicked").raw("[]");
                json.key("positionId").id("dg-");
                if json.one_in(3) {
                    write_feedback(json);
                }
            });
        });
    });
}

fn write_feedback(json: &mut JsonWriter<'_>) {
    let response = json.pick(&["up", "down"]);
    json.key("feedback").object(|json| {
        json.key("response").string(response);
        json.key("reasonCode").raw(r#"["Correct Intent"]"#);
        json.key("comment").text(40);
    });
}
