//! Tokenizers as files bring them: what a text's tokens do and do not depend on, and what is refused.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use posttrain_model::{ModelError, TextTokenizer};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Instant;

/// One token a word, `<s>` and `</s>` special, changed by `edit`.
fn file(edit: impl FnOnce(&mut Value)) -> Value {
    let token = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    let mut file = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": [token(0, "<s>"), token(1, "</s>")],
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "unk_token": "?",
                  "vocab": {"<s>": 0, "</s>": 1, "?": 2, "one": 3, "two": 4, "three": 5}},
    });
    edit(&mut file);
    file
}

fn read(file: &Value) -> Result<TextTokenizer, ModelError> {
    TextTokenizer::from_json(file.to_string().as_bytes(), Path::new("m/tokenizer.json"), 8)
}

fn template(single: &Value) -> Value {
    json!({
        "type": "TemplateProcessing", "single": single, "pair": [],
        "special_tokens": {
            "<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]},
            "</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]},
        },
    })
}

#[test]
fn what_somebody_s_last_call_cut_and_filled_is_forgotten() {
    let plain = read(&file(|_| {})).unwrap();
    let text = "one two three two one";
    assert_eq!(plain.encode_text(text).unwrap(), [3, 4, 5, 4, 3]);

    let truncation = |length: u32, stride: u32| json!({"direction": "Right", "max_length": length, "strategy": "LongestFirst", "stride": stride});
    let padding = |strategy: Value| {
        json!({"strategy": strategy, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
               "pad_type_id": 0, "pad_token": "<s>"})
    };
    for (field, value) in [
        ("truncation", truncation(2, 0)),
        ("truncation", truncation(2, 2)),
        ("truncation", truncation(0, 9)),
        ("padding", padding(json!({"Fixed": 64}))),
        ("padding", padding(json!({"Fixed": 1_000_000_000}))),
        ("padding", padding(json!("BatchLongest"))),
    ] {
        let tokenizer = read(&file(|file| file[field] = value.clone())).unwrap();
        assert_eq!(tokenizer.encode_text(text).unwrap(), [3, 4, 5, 4, 3], "{value}");
        assert_eq!(tokenizer.encode_markup(text).unwrap(), [3, 4, 5, 4, 3], "{value}");
        assert_eq!(tokenizer.to_json().unwrap(), plain.to_json().unwrap());
    }
}

#[test]
fn a_prompt_begins_as_the_post_processor_has_a_text_begin() {
    let begin = json!({"SpecialToken": {"id": "<s>", "type_id": 0}});
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    let end = json!({"SpecialToken": {"id": "</s>", "type_id": 0}});
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true});

    for (processor, expected) in [
        (Value::Null, vec![3]),
        (byte_level.clone(), vec![3]),
        (template(&json!([begin, text])), vec![0, 3]),
        // A prompt goes on: what stands behind a text is not put there.
        (template(&json!([begin, text, end])), vec![0, 3]),
        (template(&json!([text, end])), vec![3]),
        (
            json!({"type": "Sequence", "processors": [byte_level, template(&json!([begin, text]))]}),
            vec![0, 3],
        ),
        (json!({"type": "BertProcessing", "cls": ["<s>", 0], "sep": ["</s>", 1]}), vec![0, 3]),
    ] {
        let tokenizer = read(&file(|file| file["post_processor"] = processor.clone())).unwrap();
        assert_eq!(tokenizer.encode_prompt("one").unwrap(), expected, "{processor}");
        assert_eq!(tokenizer.encode_text("one").unwrap(), [3], "{processor}");
        assert_eq!(tokenizer.encode_markup("<s>one").unwrap(), [0, 3], "{processor}");
    }
}

/// A map of SentencePiece's normalizations: the trie's length, the trie, the texts.
fn charsmap(trie: &[u32], texts: &[u8]) -> Value {
    use base64::Engine;
    let length = (trie.len() * 4) as u32;
    let words = [length].into_iter().chain(trie.iter().copied());
    let bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).chain(texts.iter().copied()).collect();
    json!(base64::engine::general_purpose::STANDARD.encode(bytes))
}

/// A trie in which every letter leads to nothing but `a`, whose text begins at `value`.
fn trie(value: u32) -> Vec<u32> {
    let mut units = vec![0xffff_ff00u32; 512];
    // The root's children lie at their letters; `a` has a leaf, which lies 256 further on.
    units[0] = 0;
    units[usize::from(b'a')] = u32::from(b'a') | 1 << 8 | 256 << 10;
    units[usize::from(b'a') ^ 256] = value | 1 << 31;
    units
}

#[test]
fn a_map_of_normalizations_is_followed_before_it_is_used() {
    let normalized = |map: Value| {
        let normalizer = json!({"type": "Precompiled", "precompiled_charsmap": map});
        read(&file(|file| {
            file["normalizer"] = normalizer;
            file["model"]["vocab"]["b"] = json!(6);
        }))
    };
    let tokenizer = normalized(charsmap(&trie(0), b"b\0")).unwrap();
    assert_eq!(tokenizer.encode_text("a").unwrap(), [6]);

    let mut outside = trie(0);
    outside[usize::from(b'a')] |= 1 << 25;
    for map in [
        charsmap(&trie(7), b"b\0"),
        charsmap(&trie(1), "é\0".as_bytes()),
        charsmap(&outside, b"b\0"),
        charsmap(&trie(0)[..100], b"b\0"),
        charsmap(&[], b"b\0"),
        charsmap(&trie(0), b"\xff"),
        json!("AAAAgA=="),
        json!("////"),
        json!("?"),
        json!(""),
    ] {
        let error = normalized(map.clone()).unwrap_err().to_string();
        assert!(error.contains("`normalizer.precompiled_charsmap`"), "{error}");
        assert!(error.contains("m/tokenizer.json"), "{error}");
    }
}

#[test]
fn a_tokenizer_that_cannot_be_computed_with_is_refused_in_words() {
    let replace = |pattern: Value, content: &str| json!({"type": "Replace", "pattern": pattern, "content": content});
    let chain = |step: &Value, count: usize| json!({"type": "Sequence", "normalizers": vec![step.clone(); count]});
    let twice =
        json!([{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]);

    for (field, value, named) in [
        ("normalizer", replace(json!({"Regex": ""}), "x"), "`normalizer.pattern` is empty"),
        ("normalizer", replace(json!({"String": ""}), "x"), "`normalizer.pattern` is empty"),
        (
            "normalizer",
            chain(&replace(json!({"String": "a"}), "aa"), 60),
            "`normalizer.normalizers[10]`",
        ),
        (
            "normalizer",
            chain(&replace(json!({"Regex": "a"}), "aa"), 60),
            "`normalizer.normalizers[6]`",
        ),
        ("normalizer", replace(json!({"Regex": "((?=a)a){9999999}"}), ""), "9999999 times"),
        ("normalizer", replace(json!({"Regex": "(((?=a)a){500}){500}"}), ""), "250000 times"),
        ("normalizer", replace(json!({"Regex": "((?=a)a){5000,}"}), ""), "5000 times"),
        ("decoder", replace(json!({"Regex": ""}), "x"), "`decoder.pattern` is empty"),
        (
            "decoder",
            json!({"type": "Sequence", "decoders": vec![replace(json!({"String": "a"}), "aa"); 60]}),
            "`decoder.decoders[10]`",
        ),
        (
            "pre_tokenizer",
            json!({"type": "FixedLength", "length": 0}),
            "`pre_tokenizer.length` is 0",
        ),
        ("post_processor", template(&twice), "`post_processor.single`"),
        ("post_processor", template(&json!([])), "`post_processor.single`"),
        ("normalizer", json!({"type": "Tomorrow"}), "not a tokenizer.json"),
        (
            "model",
            json!({"type": "BPE", "vocab": {}, "merges": [], "dropout": 0.5}),
            "`model.dropout` is 0.5",
        ),
        (
            "model",
            json!({"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}),
            "not a tokenizer.json",
        ),
    ] {
        let started = Instant::now();
        let error = read(&file(|file| file[field] = value.clone())).unwrap_err().to_string();
        assert!(error.contains("m/tokenizer.json") && error.contains(named), "{named}: {error}");
        assert!(started.elapsed().as_secs() < 5, "{error}");
    }
}

/// Whatever else a file says, a text is tokenized or refused.
#[test]
fn odd_steps_end_in_tokens_or_in_words() {
    for (field, value) in [
        (
            "pre_tokenizer",
            json!({"type": "Split", "pattern": {"Regex": ""}, "behavior": "Isolated", "invert": false}),
        ),
        (
            "pre_tokenizer",
            json!({"type": "Split", "pattern": {"String": ""}, "behavior": "Removed", "invert": true}),
        ),
        (
            "pre_tokenizer",
            json!({"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": false}),
        ),
        ("normalizer", json!({"type": "Replace", "pattern": {"Regex": "x*"}, "content": "-"})),
        ("normalizer", json!({"type": "Prepend", "prepend": ""})),
        ("normalizer", json!({"type": "Strip", "strip_left": true, "strip_right": true})),
        (
            "decoder",
            json!({"type": "Strip", "content": "e", "start": 1_000_000_000, "stop": 1_000_000_000}),
        ),
        ("decoder", json!({"type": "Replace", "pattern": {"Regex": "x*"}, "content": "-"})),
        (
            "decoder",
            json!({"type": "CTC", "pad_token": "", "word_delimiter_token": "", "cleanup": true}),
        ),
        ("post_processor", json!({"type": "Sequence", "processors": []})),
    ] {
        let Ok(tokenizer) = read(&file(|file| file[field] = value.clone())) else { continue };
        for text in ["", "one", "é\u{301} one", &"a".repeat(5000), "\u{0}"] {
            let _ = tokenizer.encode_text(text);
            let _ = tokenizer.encode_prompt(text);
        }
        let _ = tokenizer.decode(&[3, 4, 5]);
    }
}
