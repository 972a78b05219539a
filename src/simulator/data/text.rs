//! Talk of customers and agents: sentences put together from the words of a language.

use super::pen::Pen;
use super::words;
use super::words::{English, Foreign};

/// The language of a conversation.
#[derive(Clone, Copy, Debug)]
pub(super) enum Language {
    /// Sentences with slots.
    English,
    /// Whole clauses, one after the other.
    Foreign(&'static Foreign),
}

impl Language {
    /// Two thirds of all conversations are English.
    pub(super) fn draw(dice: u64) -> Self {
        let foreign = usize::try_from(dice % 24).ok().and_then(|dice| words::FOREIGN.get(dice));
        foreign.map_or(Self::English, Self::Foreign)
    }

    /// `en`, `de`, …
    pub(super) const fn code(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Foreign(foreign) => foreign.code,
        }
    }
}

impl Pen<'_> {
    /// A string of about `bytes` bytes: as many sentences as it takes.
    pub(super) fn talk(&mut self, bytes: usize) {
        self.quoted(|pen| {
            let enough = pen.out.len() + bytes;
            pen.sentence();
            while pen.out.len() < enough {
                pen.push(" ");
                pen.sentence();
            }
        });
    }

    fn push(&mut self, escaped: &str) {
        self.out.extend_from_slice(escaped.as_bytes());
    }

    fn push_one_of(&mut self, list: &[&'static str]) {
        let word = self.pick(list);
        self.push(word);
    }

    fn sentence(&mut self) {
        match self.language {
            Language::English => self.english(&words::ENGLISH),
            Language::Foreign(foreign) => {
                self.push_one_of(foreign.clauses);
                self.push(foreign.comma);
                self.push_one_of(foreign.clauses);
                self.push(foreign.stop);
            }
        }
        if self.once_in(7) {
            self.push(" ");
            self.push_one_of(words::SPICE);
        }
        if self.once_in(5) {
            self.reference();
        }
    }

    fn english(&mut self, words: &English) {
        match self.rng.u8(..4) {
            0 => {
                self.push_one_of(words.openings);
                self.push(" I would like to ");
                self.push_one_of(words.verbs);
                self.push(" my ");
                self.push_one_of(words.things);
                self.push(", because ");
                self.push_one_of(words.reasons);
                self.push(".");
            }
            1 => {
                self.push("The ");
                self.push_one_of(words.things);
                self.push(" that I ordered ");
                self.push_one_of(words.times);
                self.push(" ");
                self.push_one_of(words.faults);
                self.push(", and ");
                self.push_one_of(words.reasons);
                self.push(".");
            }
            2 => {
                self.push_one_of(words.answers);
                self.push(" your ");
                self.push_one_of(words.things);
                self.push(" ");
                self.push_one_of(words.times);
                self.push(".");
            }
            _ => {
                self.push("Can you ");
                self.push_one_of(words.verbs);
                self.push(" the ");
                self.push_one_of(words.things);
                self.push(" ");
                self.push_one_of(words.times);
                self.push("? It ");
                self.push_one_of(words.faults);
                self.push(".");
            }
        }
    }

    /// The numbers that support talk is full of; they keep the text from compressing too well.
    fn reference(&mut self) {
        let number = self.rng.u32(100_000..1_000_000);
        let label = self.pick(&["order", "case", "invoice", "ref.", "ticket"]);
        self.push(&format!(" ({label} #{number})"));
    }
}
