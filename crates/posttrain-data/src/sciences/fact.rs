//! A fact and the ways of asking it.

/// A fact and the ways of asking it, in whatever direction, each with its answer.
pub(super) struct Fact {
    pub(super) group: String,
    pub(super) asks: Vec<Ask>,
}

/// A question and its answer.
pub(super) struct Ask {
    pub(super) question: String,
    pub(super) answer: String,
}

impl Fact {
    pub(super) fn new(group: String) -> Self {
        Self { group, asks: Vec::new() }
    }

    /// Adds questions that have the same answer.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "an answer is a number or a text, computed where it is given"
    )]
    pub(super) fn ask(
        mut self,
        answer: impl ToString,
        questions: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let answer = answer.to_string();
        self.asks.extend(
            questions.into_iter().map(|q| Ask { question: q.into(), answer: answer.clone() }),
        );
        self
    }

    /// The same, where it is a good question.
    pub(super) fn ask_if(
        self,
        good: bool,
        answer: impl ToString,
        questions: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        if good { self.ask(answer, questions) } else { self }
    }
}
