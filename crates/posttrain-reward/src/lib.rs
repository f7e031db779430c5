//! Verifiable rewards for language-model completions
