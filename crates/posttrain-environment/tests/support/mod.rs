//! A small random model that reads and writes bytes, a chat template, and environments.
#![allow(dead_code, reason = "not every test uses all of it")]

use futures::FutureExt;
use futures::future::BoxFuture;
use posttrain_chat::Message;
use posttrain_environment::{Action, Environment, EnvironmentError, Opening, Step};
use posttrain_model::{ChatTemplate, Decoder, ModelConfig, TextModel, TextTokenizer};
use posttrain_rollout::service::{SamplingService, SamplingServiceConfig};
use posttrain_rollout::{EngineConfig, Workers};
use serde_json::{Map, Value, json};
use std::path::Path;
use tch::{Device, Kind};

pub const START: i64 = 256;
pub const END: i64 = 257;
/// Tokens, the merged ones included.
const WORDS: i64 = 262;

/// GPT-2's letters for bytes.
fn letter(byte: u8) -> char {
    let printable = matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable {
        return char::from(byte);
    }
    let before =
        (0..byte).filter(|b| !matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)).count();
    char::from_u32(256 + before as u32).unwrap()
}

/// A token a byte, and a few pairs: the same text has several ways to be written.
pub fn tokenizer() -> TextTokenizer {
    let mut vocab: Map<String, Value> =
        (0..=255u8).map(|byte| (letter(byte).to_string(), byte.into())).collect();
    vocab.insert("<|im_start|>".into(), START.into());
    vocab.insert("<|im_end|>".into(), END.into());
    let pairs = [("a", "b"), ("e", "n"), ("o", "n"), ("t", "h")];
    for (index, (one, other)) in pairs.iter().enumerate() {
        vocab.insert(format!("{one}{other}"), (258 + index).into());
    }
    let special = |id: i64, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
    let merges: Vec<Value> = pairs.iter().map(|(one, other)| json!([one, other])).collect();
    let json = json!({
        "version": "1.0",
        "added_tokens": [special(START, "<|im_start|>"), special(END, "<|im_end|>")],
        "pre_tokenizer": bytes,
        "decoder": bytes,
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    });
    TextTokenizer::from_json(json.to_string().as_bytes(), Path::new("bytes"), WORDS).unwrap()
}

pub fn template() -> ChatTemplate {
    ChatTemplate::new(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
         {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    )
    .unwrap()
}

pub fn model() -> TextModel {
    let config = ModelConfig {
        vocab_size: WORDS,
        eos_token_ids: vec![END],
        max_position_embeddings: 4096,
        ..ModelConfig::tiny()
    };
    let decoder = Decoder::random(&config, 5, Kind::Float, Device::Cpu).unwrap();
    TextModel::new(decoder, tokenizer(), template())
}

pub fn service(model: &TextModel) -> SamplingService {
    let config = SamplingServiceConfig {
        engine: EngineConfig {
            keep_tokens: 100_000,
            workers: Workers::Count(1),
            ..EngineConfig::default()
        },
        ..SamplingServiceConfig::default()
    };
    SamplingService::start(model.decoder.clone(), Some(model.tokenizer.clone()), config).unwrap()
}

/// Answers each turn with the next of its texts, and ends after the last.
pub struct Texts(pub Vec<&'static str>);

impl Environment for Texts {
    fn start(&mut self) -> BoxFuture<'_, Result<Opening, EnvironmentError>> {
        async { Ok(Opening::new(Message::user("Say something."))) }.boxed()
    }

    fn act<'a>(&'a mut self, _action: Action<'a>) -> BoxFuture<'a, Result<Step, EnvironmentError>> {
        async move {
            if self.0.is_empty() {
                return Ok(Step::done(1.0));
            }
            Ok(Step::next(Message::user(self.0.remove(0))))
        }
        .boxed()
    }
}
