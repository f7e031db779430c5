//! What a model of a vocabulary of digits reads and writes: its tokenizer and its chat template.

use posttrain_model::{ChatTemplate, TextTokenizer};
use std::path::Path;

/// How many words there are: the end, "ask" and the ten digits.
pub const WORDS: i64 = 12;

/// A word a token, divided by spaces; token 0 ends a text.
pub fn tokenizer() -> TextTokenizer {
    let words = ["<end>", "ask", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    let vocab: serde_json::Map<_, _> =
        words.iter().enumerate().map(|(i, w)| (w.to_string(), i.into())).collect();
    let json = serde_json::json!({
        "version": "1.0",
        "added_tokens": [{"id": 0, "content": "<end>", "single_word": false, "lstrip": false, "rstrip": false,
                          "normalized": false, "special": true}],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "ask"},
    });
    TextTokenizer::from_json(json.to_string().as_bytes(), Path::new("words"), WORDS).unwrap()
}

/// "ask", and the question.
pub fn template() -> ChatTemplate {
    ChatTemplate::new("ask {% for m in messages %}{{ m.content }} {% endfor %}").unwrap()
}
