//! What the agent did and what was suggested: the bulk of an item.

use super::pen::Pen;
use super::render::Facts;
use super::words;

/// One element of `agentActions`.
pub(super) fn agent_action(pen: &mut Pen<'_>, facts: &Facts) {
    let at = facts.moment(&mut pen.rng);
    pen.object(|pen| {
        let kind = pen.pick(&["SearchBarEntry", "SearchBarEntry", "LibrarySelection"]);
        pen.key("actionType").string(kind);
        if !pen.once_in(9) {
            pen.key("action").object(|pen| search(pen, at));
        }
        let uses = pen.rng.u8(..3);
        pen.key("used").array(|pen| {
            for _ in 0..uses {
                used(pen, at + 8_000);
            }
        });
    });
}

/// One element of `proActiveSuggestions`.
pub(super) fn proactive_suggestion(pen: &mut Pen<'_>, facts: &Facts) {
    let at = facts.moment(&mut pen.rng);
    pen.object(|pen| {
        pen.key("utterance").talk(90);
        pen.key("suggestions");
        suggestions(pen);
        if !pen.once_in(7) {
            pen.key("displayTime").time(at);
        }
        displayed(pen);
        let uses = pen.rng.u8(..2);
        pen.key("used").array(|pen| {
            for _ in 0..uses {
                used(pen, at + 5_000);
            }
        });
    });
}

fn search(pen: &mut Pen<'_>, at: i64) {
    pen.key("searchPhrase").talk(30);
    pen.key("typingStartTime").time(at);
    pen.key("executionStartTime").time(at + 380);
    if !pen.once_in(7) {
        pen.key("displayTime").time(at + 1_880);
    }
    let shown = pen.rng.u8(1..4);
    pen.key("suggestionsShown").array(|pen| {
        for _ in 0..shown {
            pen.talk(20);
        }
    });
    let picked = pen.rng.u32(..=u32::from(shown));
    pen.key("suggestionUsed").number(picked);
    pen.key("phraseInput").talk(25);
    let (presented, accepted) = (pen.rng.u32(..4), pen.rng.u32(..2));
    pen.key("correctionsPresented").number(presented);
    pen.key("correctionsAccepted").number(accepted);
    displayed(pen);
    pen.key("suggestions");
    suggestions(pen);
}

fn displayed(pen: &mut Pen<'_>) {
    let (tasks, answers) = (pen.rng.u32(..3), pen.rng.u32(..3));
    pen.key("countDisplayedAnswers").object(|pen| {
        pen.key("countDialogTasks").number(tasks);
        pen.key("countFaqs").number(0u32);
        pen.key("countAnswers").number(answers);
        pen.key("countFiles").number(0u32);
        pen.key("countWebPages").number(0u32);
        pen.key("countFromNonNativeDataSource").number(0u32);
    });
}

fn suggestions(pen: &mut Pen<'_>) {
    let (dialogs, answers) = (pen.rng.u8(..3), pen.rng.u8(..2));
    pen.object(|pen| {
        pen.key("dialogs").array(|pen| {
            for _ in 0..dialogs {
                let name = pen.pick(words::DIALOGS);
                pen.object(|pen| pen.key("name").string(name));
            }
        });
        pen.key("answers").array(|pen| {
            for _ in 0..answers {
                answer(pen);
            }
        });
    });
}

fn answer(pen: &mut Pen<'_>) {
    let bytes = pen.rng.usize(120..500);
    pen.object(|pen| {
        pen.key("content").talk(bytes);
        pen.key("positionId").id("dg-");
        pen.key("sources").array(|pen| {
            let title = pen.pick(words::TITLES);
            pen.object(|pen| {
                pen.key("title").string(title);
                pen.key("url").string("https://example.com/knowledge");
            });
        });
        pen.key("internalFlag").bool(false);
    });
}

fn used(pen: &mut Pen<'_>, at: i64) {
    pen.object(|pen| {
        pen.key("targetType").string("Answer");
        pen.key("target").object(|pen| {
            pen.key("answer").object(|pen| {
                // Both spellings are found in real answers.
                let (status, more) = (pen.pick(&["Sent", "send", "Copied"]), pen.once_in(4));
                let key = pen.pick(&["showMoreClicked", "showmoreClicked"]);
                pen.key("status").string(status);
                pen.key("usedTime").time(at);
                pen.key(key).bool(more);
                pen.key("answerLinkClicked").raw("[]");
                pen.key("positionId").id("dg-");
                if pen.once_in(3) {
                    feedback(pen);
                }
            });
        });
    });
}

fn feedback(pen: &mut Pen<'_>) {
    let response = pen.pick(&["up", "down"]);
    pen.key("feedback").object(|pen| {
        pen.key("response").string(response);
        pen.key("reasonCode").raw(r#"["Correct Intent"]"#);
        pen.key("comment").talk(40);
    });
}
