//! Passages, and finding them: by relevance (BM25), or by a text that they have.

use std::collections::HashMap;

use bm25::{SearchEngine, SearchEngineBuilder, Tokenizer};

use crate::EnvironmentError;

/// A passage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passage {
    /// Its number, by which a policy names it.
    pub id: u32,
    /// Its text.
    pub text: String,
}

/// Words as they are indexed: letters and digits, in lower case.
#[derive(Debug, Clone, Copy, Default)]
struct Words;

impl Tokenizer for Words {
    fn tokenize(&self, text: &str) -> Vec<String> {
        let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
        words.map(str::to_lowercase).collect()
    }
}

/// A corpus of passages with its index.
///
/// ```
/// use posttrain_environment::search::{Corpus, Passage};
///
/// let texts = ["Ada was born in London.", "Ada wrote about engines.", "Emil was born in Paris."];
/// let passages = texts.iter().zip(1..).map(|(text, id)| Passage { id, text: (*text).into() });
/// let corpus = Corpus::new(passages.collect())?;
/// assert_eq!(corpus.search("where was Emil born?", 1), [3]);
/// assert_eq!(corpus.grep("about engines", 5), [2]);
/// assert_eq!(corpus.text(1), Some("Ada was born in London."));
/// # Ok::<(), posttrain_environment::EnvironmentError>(())
/// ```
pub struct Corpus {
    passages: Vec<Passage>,
    places: HashMap<u32, usize>,
    engine: SearchEngine<u32, u32, Words>,
}

impl Corpus {
    /// Indexes passages.
    ///
    /// # Errors
    /// [`EnvironmentError::Failed`] names a number that two passages have.
    pub fn new(passages: Vec<Passage>) -> Result<Self, EnvironmentError> {
        let mut places = HashMap::with_capacity(passages.len());
        for (place, passage) in passages.iter().enumerate() {
            if places.insert(passage.id, place).is_some() {
                let reason = format!("two passages have the number {}", passage.id);
                return Err(EnvironmentError::Failed { reason });
            }
        }
        let documents = passages.iter().map(|p| bm25::Document::new(p.id, p.text.as_str()));
        let documents: Vec<_> = documents.collect();
        let engine = SearchEngineBuilder::with_tokenizer_and_documents(Words, documents).build();
        Ok(Self { passages, places, engine })
    }

    /// How many passages there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.passages.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.passages.is_empty()
    }

    /// The numbers of the most relevant passages by BM25, the best first; of equal ones the lower
    /// number.
    #[must_use]
    pub fn search(&self, query: &str, most: usize) -> Vec<u32> {
        let mut found = self.engine.search(query, None);
        found.sort_by(|one, other| {
            other.score.total_cmp(&one.score).then(one.document.id.cmp(&other.document.id))
        });
        found.into_iter().take(most).map(|result| result.document.id).collect()
    }

    /// The numbers of the first passages that have a text, in whatever case.
    #[must_use]
    pub fn grep(&self, text: &str, most: usize) -> Vec<u32> {
        let text = text.to_lowercase();
        let has = |passage: &&Passage| passage.text.to_lowercase().contains(&text);
        self.passages.iter().filter(has).take(most).map(|passage| passage.id).collect()
    }

    /// A passage's text.
    #[must_use]
    pub fn text(&self, id: u32) -> Option<&str> {
        self.places.get(&id).map(|place| self.passages[*place].text.as_str())
    }
}
