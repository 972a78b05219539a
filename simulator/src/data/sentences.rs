//! Sentences of customers and agents, assembled from the vocabulary of a language.

use super::json_writer::JsonWriter;
use super::vocabulary::{self, ClauseVocabulary, EnglishVocabulary};

/// The language of a conversation.
#[derive(Clone, Copy, Debug)]
pub(super) enum Language {
    /// Sentences are templates with slots.
    English,
    /// Sentences are sequences of whole clauses.
    Clauses(&'static ClauseVocabulary),
}

impl Language {
    /// Draws a language. Two thirds of all items are in English.
    pub(super) fn draw(random: u64) -> Self {
        let index = usize::try_from(random % 24).ok();
        index.and_then(|index| vocabulary::CLAUSE_LANGUAGES.get(index)).map_or(Self::English, Self::Clauses)
    }

    /// The ISO 639-1 code.
    pub(super) const fn code(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Clauses(vocabulary) => vocabulary.code,
        }
    }
}

impl JsonWriter<'_> {
    /// Writes a string of sentences with at least `bytes` bytes.
    pub(super) fn text(&mut self, bytes: usize) {
        self.quoted(|json| {
            let end = json.out.len() + bytes;
            json.sentence();
            while json.out.len() < end {
                json.push(" ");
                json.sentence();
            }
        });
    }

    fn push(&mut self, escaped: &str) {
        self.out.extend_from_slice(escaped.as_bytes());
    }

    fn push_one_of(&mut self, list: &[&'static str]) {
        let text = self.pick(list);
        self.push(text);
    }

    fn sentence(&mut self) {
        match self.language {
            Language::English => self.english_sentence(&vocabulary::ENGLISH),
            Language::Clauses(vocabulary) => {
                self.push_one_of(vocabulary.clauses);
                self.push(vocabulary.conjunction);
                self.push_one_of(vocabulary.clauses);
                self.push(vocabulary.full_stop);
            }
        }
        if self.one_in(7) && !self.is_plain() {
            self.push(" ");
            self.push_one_of(vocabulary::EDGE_CASES);
        }
        if self.one_in(5) {
            self.reference();
        }
    }

    fn english_sentence(&mut self, vocabulary: &EnglishVocabulary) {
        match self.rng.u8(..4) {
            0 => {
                self.push_one_of(vocabulary.openings);
                self.push(" I would like to ");
                self.push_one_of(vocabulary.verbs);
                self.push(" my ");
                self.push_one_of(vocabulary.things);
                self.push(", because ");
                self.push_one_of(vocabulary.reasons);
                self.push(".");
            }
            1 => {
                self.push("The ");
                self.push_one_of(vocabulary.things);
                self.push(" that I ordered ");
                self.push_one_of(vocabulary.times);
                self.push(" ");
                self.push_one_of(vocabulary.faults);
                self.push(", and ");
                self.push_one_of(vocabulary.reasons);
                self.push(".");
            }
            2 => {
                self.push_one_of(vocabulary.answers);
                self.push(" your ");
                self.push_one_of(vocabulary.things);
                self.push(" ");
                self.push_one_of(vocabulary.times);
                self.push(".");
            }
            _ => {
                self.push("Can you ");
                self.push_one_of(vocabulary.verbs);
                self.push(" the ");
                self.push_one_of(vocabulary.things);
                self.push(" ");
                self.push_one_of(vocabulary.times);
                self.push("? It ");
                self.push_one_of(vocabulary.faults);
                self.push(".");
            }
        }
    }

    /// Writes a reference number. Random digits keep the compression ratio of the text realistic.
    fn reference(&mut self) {
        let number = self.rng.u32(100_000..1_000_000);
        let label = self.pick(&["order", "case", "invoice", "ref.", "ticket"]);
        self.push(&format!(" ({label} #{number})"));
    }
}
