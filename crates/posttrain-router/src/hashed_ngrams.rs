//! `HashedNgrams`: texts as counts of hashed character and word n-grams.

use ndarray::Array2;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::excerpt::excerpt;
use crate::words::words;
use crate::{Embedder, RouterError};

/// The largest dimension that is taken.
const LARGEST: usize = 1 << 20;

/// Configuration of [`HashedNgrams`].
///
/// ```
/// use posttrain_router::NgramConfig;
///
/// assert_eq!(NgramConfig::default().build()?.config().dimension, 4096);
/// assert!(NgramConfig { dimension: 0, ..NgramConfig::default() }.build().is_err());
/// # Ok::<(), posttrain_router::RouterError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NgramConfig {
    /// The length of a vector, from 1 to 2²⁰. Default 4096.
    pub dimension: usize,
    /// The longest runs of characters of a word that count, from 2 on, the marks of its beginning
    /// and end included; 0 for none, at most 8. Default 4.
    pub characters: usize,
    /// The longest runs of words that count; 0 for none, at most 8. Default 2. In scripts without
    /// blanks most characters are words.
    pub words: usize,
    /// Another seed puts n-grams elsewhere. Default 0.
    pub seed: u64,
    /// Characters of a text that are read at most, at least 1. Default 20,000.
    pub text_chars: usize,
}

impl Default for NgramConfig {
    fn default() -> Self {
        Self { dimension: 4096, characters: 4, words: 2, seed: 0, text_chars: 20_000 }
    }
}

impl NgramConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`RouterError::InvalidConfig`] naming the first field that is out of its range.
    pub fn validate(&self) -> Result<(), RouterError> {
        if !(1..=LARGEST).contains(&self.dimension) {
            return Err(RouterError::config("dimension", self.dimension, "from 1 to 1048576"));
        }
        if self.characters == 1 || self.characters > 8 {
            return Err(RouterError::config("characters", self.characters, "0, or from 2 to 8"));
        }
        if self.words > 8 || self.words + self.characters == 0 {
            return Err(RouterError::config(
                "words",
                self.words,
                "from 0 to 8, and not 0 without characters",
            ));
        }
        if self.text_chars == 0 {
            return Err(RouterError::config("text_chars", 0, "at least 1"));
        }
        Ok(())
    }

    /// The embedder.
    ///
    /// # Errors
    /// As in [`validate`](Self::validate).
    pub fn build(self) -> Result<HashedNgrams, RouterError> {
        self.validate()?;
        Ok(HashedNgrams { config: self })
    }
}

/// Counts a text's n-grams of characters and words in places that a seeded hash gives them
/// (Weinberger et al., 2009), each count damped to `ln(1 + n)`, the whole scaled to length 1; a
/// text without letters, digits and symbols is the zero vector. Needs no model, and gives the same vectors
/// on every platform.
///
/// ```
/// use posttrain_router::{Embedder, HashedNgrams};
///
/// let vectors = HashedNgrams::default().embed(&["What is 7 + 5?", "what IS 7 + 5", "", "Who?"])?;
/// assert_eq!(vectors.row(0), vectors.row(1)); // case and punctuation do not count
/// assert!((vectors.row(0).dot(&vectors.row(0)) - 1.0).abs() < 1e-6);
/// assert_eq!(vectors.row(2).sum(), 0.0);
/// # Ok::<(), posttrain_router::RouterError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HashedNgrams {
    config: NgramConfig,
}

impl HashedNgrams {
    /// What it was made of.
    #[must_use]
    pub fn config(&self) -> &NgramConfig {
        &self.config
    }

    fn fill(&self, text: &str, row: &mut [f32]) {
        let folded = excerpt(text, self.config.text_chars).to_lowercase();
        let words: Vec<&str> = words(&folded).collect();

        for run in 1..=self.config.words {
            words.windows(run).for_each(|words| self.count(row, b'w', words));
        }
        for word in &words {
            self.count_characters(row, word);
        }

        row.iter_mut().for_each(|count| *count = count.ln_1p());
        let norm = row.iter().map(|value| value * value).sum::<f32>().sqrt();
        if norm > 0.0 {
            row.iter_mut().for_each(|value| *value /= norm);
        }
    }

    fn count_characters(&self, row: &mut [f32], word: &str) {
        let marked = format!("<{word}>");
        let ends: Vec<usize> =
            marked.char_indices().map(|(at, _)| at).chain([marked.len()]).collect();

        for run in 2..=self.config.characters {
            ends.windows(run + 1)
                .for_each(|ends| self.count(row, b'c', &[&marked[ends[0]..ends[run]]]));
        }
    }

    fn count(&self, row: &mut [f32], kind: u8, parts: &[&str]) {
        let mut hash = Fnv::new(self.config.seed);
        hash.write(&[kind]);
        for part in parts {
            hash.write(part.as_bytes());
            hash.write(&[0]);
        }
        row[(hash.finish() % row.len() as u64) as usize] += 1.0;
    }
}

impl Embedder for HashedNgrams {
    fn embed(&self, texts: &[&str]) -> Result<Array2<f32>, RouterError> {
        let dimension = self.config.dimension;
        let mut values = vec![0.0; texts.len() * dimension];
        values.par_chunks_mut(dimension).zip(texts).for_each(|(row, text)| self.fill(text, row));
        Array2::from_shape_vec((texts.len(), dimension), values)
            .map_err(|source| RouterError::foreign("hashed-ngrams", source))
    }

    fn dimension(&self) -> usize {
        self.config.dimension
    }

    fn name(&self) -> &str {
        "hashed-ngrams"
    }

    fn settings(&self) -> String {
        let NgramConfig { dimension, characters, words, seed, text_chars } = self.config;
        format!(
            "dimension={dimension} characters={characters} words={words} seed={seed} text_chars={text_chars} segmentation=unicode"
        )
    }
}

/// FNV-1a with a seed, its bits mixed at the end (SplitMix64's finish), so that the low ones are as
/// good as any.
struct Fnv(u64);

impl Fnv {
    fn new(seed: u64) -> Self {
        let mut hash = Self(0xcbf2_9ce4_8422_2325);
        hash.write(&seed.to_le_bytes());
        hash
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn finish(self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_hash_is_the_same_on_every_platform() {
        // FNV-1a of eight zero bytes and "a", and SplitMix64's finish, worked out in Python.
        let mut hash = Fnv::new(0);
        hash.write(b"a");
        assert_eq!(hash.finish(), 0x0d38_d3c8_a628_cc82);
    }

    #[test]
    fn a_seed_puts_n_grams_elsewhere() {
        let embed = |seed| {
            NgramConfig { seed, ..NgramConfig::default() }
                .build()
                .unwrap()
                .embed(&["elements"])
                .unwrap()
        };
        assert_eq!(embed(1), embed(1));
        assert_ne!(embed(1), embed(2));
    }

    proptest! {
        #[test]
        fn vectors_are_of_length_one_or_nothing(text in "\\PC{0,60}", dimension in 1usize..300) {
            let embedder = NgramConfig { dimension, ..NgramConfig::default() }.build().unwrap();
            let vector = embedder.embed(&[&text]).unwrap();
            let norm = vector.iter().map(|value| value * value).sum::<f32>();
            let empty = words(&text.to_lowercase()).next().is_none();
            let expected = if empty { 0.0 } else { 1.0 };
            prop_assert!((norm - expected).abs() < 1e-4, "{}", norm);
        }
    }
}
