//! The table "Where is it?" of `CONTRIBUTING.md`: each question is answered by one file, whose first paragraph says so
//! in the words of the question.

use std::fs;
use std::path::Path;

/// Letters of a word that are compared, so that "refreshed" equals "refreshes".
const STEM: usize = 5;

/// The stems of the words of `text` that have at least four letters.
fn stems(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| word.len() >= 4);
    words.map(|word| word.chars().take(STEM).collect::<String>().to_lowercase()).collect()
}

/// The first paragraph of the documentation of a file.
fn first_paragraph(text: &str) -> String {
    text.lines().map_while(|line| line.strip_prefix("//! ")).collect::<Vec<_>>().join(" ")
}

/// Whether a paragraph has at least two thirds of the words of a question.
fn answers(paragraph: &str, question: &str) -> bool {
    let (known, asked) = (stems(paragraph), stems(question));
    !asked.is_empty() && asked.iter().filter(|word| known.contains(word)).count() * 3 >= asked.len() * 2
}

#[test]
fn each_question_is_answered_by_the_first_paragraph_of_its_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("CONTRIBUTING.md")).unwrap();
    let (_, table) = text.split_once("## Where is it?").unwrap();
    let rows = table.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let rows = rows.filter_map(|row| row.strip_prefix("| ")?.strip_suffix("` |")?.split_once("? | `"));
    let unanswered = |(question, file): &(&str, &str)| {
        let text = fs::read_to_string(root.join(file)).unwrap_or_default();
        !answers(&first_paragraph(&text), question)
    };
    let (unanswered, answered): (Vec<_>, Vec<_>) = rows.partition(unanswered);
    assert!(unanswered.is_empty(), "{unanswered:#?}");
    assert!(answered.len() >= 22, "{}", answered.len());
}

#[test]
fn paragraph_without_the_words_of_a_question_is_no_answer() {
    assert!(answers("How long a run of pages is planned to be", "how long a run of pages is planned to be"));
    assert!(answers("puts a valid token into `auth`, and refreshes it", "when a token is refreshed"));
    assert!(!answers("The known purges, and the sweep of memory", "where is a purge remembered"));
}
