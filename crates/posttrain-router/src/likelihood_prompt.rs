//! The prompt of a `LikelihoodRouter`: shots, then the question.

use std::fmt::Write;

use posttrain_chat::Message;

use crate::excerpt::excerpt;
use crate::{
    LabelQuery, LabeledQuestion, LikelihoodConfig, Prompt, RouterError, RouterPromptStyle, labels,
};

/// Makes a query of a question.
#[derive(Debug, Clone)]
pub(crate) struct PromptMaker {
    before: Prompt,
    continuations: Vec<String>,
    heading: String,
    question_chars: usize,
}

impl PromptMaker {
    pub fn new(config: &LikelihoodConfig, shots: &[LabeledQuestion]) -> Result<Self, RouterError> {
        let names = if config.names.is_empty() { &config.labels } else { &config.names };
        let name = |shot: &LabeledQuestion| {
            labels::index(&config.labels, &shot.label, || "a shot".to_owned()).map(|at| &names[at])
        };
        let named = shots.iter().map(|shot| Ok((shot.question.as_str(), name(shot)?.as_str())));
        let named: Vec<(&str, &str)> = named.collect::<Result<_, RouterError>>()?;

        let mut maker = Self {
            before: Prompt::Text(String::new()),
            continuations: names.clone(),
            heading: config.heading.clone(),
            question_chars: config.question_chars,
        };

        match config.style {
            RouterPromptStyle::FewShot => {
                // A word in the middle of a text begins with its space.
                maker.continuations.iter_mut().for_each(|name| name.insert(0, ' '));
                maker.before = Prompt::Text(maker.text_before(config, names, &named));
            }
            RouterPromptStyle::Chat => {
                maker.before = Prompt::Chat(maker.messages_before(config, names, &named))
            }
        }

        Ok(maker)
    }

    /// The query whose most likely continuation is the question's label.
    pub fn query(&self, question: &str) -> LabelQuery {
        let prompt = match &self.before {
            Prompt::Text(before) => Prompt::Text(format!("{before}{}", self.asked(question))),
            Prompt::Chat(before) => {
                let asked = Message::user(excerpt(question, self.question_chars));
                Prompt::Chat(before.iter().cloned().chain([asked]).collect())
            }
        };

        LabelQuery { prompt, continuations: self.continuations.clone() }
    }

    /// A question in plain text. On one line, lest it look like several.
    fn asked(&self, question: &str) -> String {
        let question = excerpt(question, self.question_chars);
        let line = question.split_whitespace().collect::<Vec<_>>().join(" ");
        format!("Question: {line}\n{}:", self.heading)
    }

    fn text_before(
        &self,
        config: &LikelihoodConfig,
        names: &[String],
        shots: &[(&str, &str)],
    ) -> String {
        let mut text = described(config, names);
        if !text.is_empty() {
            text.push('\n');
        }

        for (question, name) in shots {
            text.push_str(&self.asked(question));
            text.push_str(&format!(" {name}\n\n"));
        }
        text
    }

    fn messages_before(
        &self,
        config: &LikelihoodConfig,
        names: &[String],
        shots: &[(&str, &str)],
    ) -> Vec<Message> {
        let heading = self.heading.to_lowercase();
        let list = names.join(", ");
        let mut system = format!(
            "Say which {heading} the question belongs to: {list}. Answer with the {heading} only."
        );

        let described = described(config, names);
        if !described.is_empty() {
            system = format!("{system}\n{}", described.trim_end());
        }

        let turn = |(question, name): &(&str, &str)| {
            [Message::user(excerpt(question, self.question_chars)), Message::assistant(*name)]
        };
        [Message::system(system)].into_iter().chain(shots.iter().flat_map(turn)).collect()
    }
}

/// A line a label; empty where there are no descriptions.
fn described(config: &LikelihoodConfig, names: &[String]) -> String {
    names.iter().zip(&config.descriptions).fold(String::new(), |mut text, (name, description)| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name}: {description}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shots() -> Vec<LabeledQuestion> {
        vec![LabeledQuestion { question: "7 +\n5?".into(), label: "math".into() }]
    }

    fn config(style: RouterPromptStyle) -> LikelihoodConfig {
        let names = vec!["mathematics".to_owned(), "social sciences".to_owned()];
        LikelihoodConfig {
            names,
            style,
            question_chars: 5,
            ..LikelihoodConfig::new(["math", "social"])
        }
    }

    #[test]
    fn plain_text_ends_where_the_label_begins() {
        let query = PromptMaker::new(&config(RouterPromptStyle::FewShot), &shots())
            .unwrap()
            .query("Who was it?");
        let text = "Question: 7 + 5…\nSubject: mathematics\n\nQuestion: Who w…\nSubject:";
        assert_eq!(query.prompt, Prompt::Text(text.to_owned()));
        assert_eq!(query.continuations, [" mathematics", " social sciences"]);
    }

    #[test]
    fn a_chat_has_the_labels_in_its_instructions() {
        let descriptions = vec!["numbers".to_owned(), "people".to_owned()];
        let config = LikelihoodConfig { descriptions, ..config(RouterPromptStyle::Chat) };
        let query = PromptMaker::new(&config, &shots()).unwrap().query("Who?");
        let Prompt::Chat(messages) = query.prompt else { panic!("{query:?}") };
        assert_eq!(
            messages[0].text(),
            "Say which subject the question belongs to: mathematics, social sciences. Answer with the subject only.\n\
             mathematics: numbers\nsocial sciences: people"
        );
        assert_eq!(
            messages[1..],
            [Message::user("7 +\n5…"), Message::assistant("mathematics"), Message::user("Who?")]
        );
        assert_eq!(query.continuations, ["mathematics", "social sciences"]);
    }
}
