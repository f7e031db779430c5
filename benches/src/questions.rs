//! The model and the questions of every benchmark that runs one.

use anyhow::{Context, Result};
use posttrain::model::{
    ChatTemplate, Checkpoint, ComputeKind, Decoder, DeviceChoice, Message, TextTokenizer,
    select_device, select_kind,
};
use serde::Deserialize;
use std::path::Path;
use std::sync::Arc;

/// A question and its answer.
#[derive(Debug, Clone, Deserialize)]
pub struct Question {
    /// Two-operand arithmetic.
    pub question: String,
    /// The result.
    pub answer: String,
}

/// The first 200 questions of seed 0, as `peers/workload.py` makes them.
///
/// # Errors
/// A line that is not a question.
pub fn questions() -> Result<Vec<Question>> {
    let lines = include_str!("../fixtures/questions.jsonl").lines();
    lines.map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

/// The demonstration model, in the kind that the processor multiplies fastest.
pub struct BenchModel {
    /// The decoder.
    pub decoder: Arc<Decoder>,
    /// Its tokenizer.
    pub tokenizer: Arc<TextTokenizer>,
    template: ChatTemplate,
}

impl BenchModel {
    /// Opens the model that `cargo xtask setup` placed.
    ///
    /// # Errors
    /// What is wrong with its file.
    pub fn open() -> Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../.models/SmolLM2-135M-Instruct.Q4_1.gguf");
        let checkpoint = Checkpoint::open(&path).context("run `cargo xtask setup` first")?;
        let device = select_device(DeviceChoice::Auto)?;
        Ok(Self {
            decoder: Arc::new(checkpoint.decoder(select_kind(ComputeKind::Auto, device), device)?),
            tokenizer: Arc::new(checkpoint.tokenizer()?),
            template: checkpoint.chat_template()?,
        })
    }

    /// A question as the model is asked it.
    ///
    /// # Errors
    /// What the template refuses.
    pub fn prompt(&self, question: &str) -> Result<Vec<i64>> {
        self.prompt_of(&[Message::user(question)])
    }

    /// A conversation as the model is asked to go on with it.
    ///
    /// # Errors
    /// What the template refuses.
    pub fn prompt_of(&self, messages: &[Message]) -> Result<Vec<i64>> {
        Ok(self.template.encode(&self.tokenizer, messages, true)?)
    }
}
