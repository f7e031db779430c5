//! Text that grows token by token: what of it is certain, and what may still turn into something
//! else.

use crate::refusal::Refusal;
use posttrain_model::TextTokenizer;

/// The text of a completion while it is drawn.
pub(crate) struct GrowingText {
    tokens: Vec<i64>,
    stops: Vec<String>,
    /// Bytes that have been given out.
    told: usize,
    /// Tokens whose text is final, and its bytes.
    settled: usize,
    text: String,
}

/// Tokens before the last settled one that are decoded again, for those whose text depends on what
/// stands before them.
const BEFORE: usize = 8;

impl GrowingText {
    pub fn new(stops: &[String]) -> Self {
        Self { tokens: Vec::new(), stops: stops.to_vec(), told: 0, settled: 0, text: String::new() }
    }

    /// Adds a token, and returns the text that is certain now: neither half a character, nor what
    /// may be the beginning of a stop text.
    pub fn push(&mut self, tokenizer: &TextTokenizer, token: i64) -> Result<String, Refusal> {
        self.tokens.push(token);
        let start = self.settled.saturating_sub(BEFORE);
        let before = tokenizer.decode(&self.tokens[start..self.settled])?;
        let with = tokenizer.decode(&self.tokens[start..])?;
        // A character's last bytes are still to come.
        if with.ends_with('\u{fffd}') {
            return Ok(String::new());
        }
        self.text.push_str(with.get(before.len()..).unwrap_or_default());
        self.settled = self.tokens.len();

        let end = self.certain();
        let fresh = self.text.get(self.told..end).unwrap_or_default().to_owned();
        self.told = self.told.max(end);
        Ok(fresh)
    }

    /// What the finished text has beyond what was given out.
    pub fn finish(&self, whole: &str) -> String {
        whole.get(self.told..).unwrap_or_default().to_owned()
    }

    /// Bytes up to which the text holds no stop text, not even the beginning of one at its end.
    fn certain(&self) -> usize {
        let mut end = self.text.len();
        for stop in &self.stops {
            if let Some(at) = self.text.find(stop.as_str()) {
                end = end.min(at);
            }
            let longest = stop.len().min(self.text.len());
            let begun = (1..=longest)
                .rev()
                .find(|length| stop.get(..*length).is_some_and(|head| self.text.ends_with(head)));
            end = end.min(self.text.len() - begun.unwrap_or(0));
        }
        end
    }
}
