//! Conversations as datums: which tokens are learned, and which are read.

use crate::RecipeError;
use crate::prompt::{PromptForm, PromptStyle};
use posttrain_chat::{Message, Role};
use posttrain_data::Example;
use posttrain_model::TextModel;
use posttrain_train::Datum;
use serde_json::Value;

/// A message of a conversation in OpenAI's form for fine-tuning, and whether it is learned: an
/// assistant's is, unless its `weight` is 0.
struct Turn {
    message: Message,
    learned: bool,
}

impl Turn {
    /// Reads a message; why it cannot be, in words.
    fn read(value: &Value) -> Result<Self, String> {
        let mut fields = value.as_object().cloned().ok_or("is not an object")?;
        // A message refuses the fields that it does not know.
        let weight = fields.remove("weight");
        let message: Message = serde_json::from_value(Value::Object(fields))
            .map_err(|error| format!("cannot be read: {error}"))?;

        let by_assistant = message.role == Role::Assistant;
        let learned = match weight.as_ref().map(Value::as_f64) {
            None => by_assistant,
            Some(_) if !by_assistant => return Err("has a `weight`, and is no assistant's".into()),
            Some(Some(0.0)) => false,
            Some(Some(1.0)) => true,
            Some(_) => return Err("has a `weight` that is neither 0 nor 1".into()),
        };
        Ok(Self { message, learned })
    }
}

/// An example's answer, to be learned behind its question as `style` puts it; or, where the
/// example's metadata has `messages`, that conversation, of which every assistant's message is
/// learned whose `weight` is not 0. Fields and weights that are not known are refused.
///
/// # Errors
/// [`RecipeError::Example`] for messages that cannot be read, or among which nothing is learned;
/// [`RecipeError::Model`] if the template or the tokenizer refuses.
pub fn conversation_datum(
    model: &TextModel,
    style: &PromptStyle,
    example: &Example,
) -> Result<Datum, RecipeError> {
    let field = |name: &str| example.metadata.as_ref().and_then(|metadata| metadata.get(name));
    let Some(messages) = field("messages") else {
        return answer_datum(model, style, example, &example.answer);
    };
    let refused = |reason: String| RecipeError::example(example, format!("metadata {reason}"));
    if field("tools").is_some() {
        let reason = "`tools` beside `messages`: give the model's template its tools instead";
        return Err(refused(reason.into()));
    }
    let list = messages.as_array().ok_or_else(|| refused("`messages` is not a list".into()))?;

    let mut messages = Vec::with_capacity(list.len());
    let mut learned = Vec::new();
    for (at, value) in list.iter().enumerate() {
        let turn = Turn::read(value)
            .map_err(|reason| refused(format!("`messages`: message {} {reason}", at + 1)))?;
        messages.push(turn.message);
        if turn.learned {
            learned.push(at);
        }
    }
    if learned.is_empty() {
        return Err(RecipeError::example(example, "no assistant's message to be learned".into()));
    }
    learned_turns(model, example, &messages, &learned)
}

/// One answer, to be learned behind an example's question as `style` puts it. Answers to the same
/// question share its prompt.
///
/// # Errors
/// Those of [`conversation_datum`].
pub fn answer_datum(
    model: &TextModel,
    style: &PromptStyle,
    example: &Example,
    answer: &str,
) -> Result<Datum, RecipeError> {
    let prompt = style.encode(&example.question, &model.tokenizer, &model.template)?;
    let tokens = match style.form {
        // As the prompt's own shots have it: the answer ends with its line.
        PromptForm::Plain => model.tokenizer.encode_text(&format!(" {}\n", answer.trim()))?,
        PromptForm::Chat => {
            let mut messages = style.messages(&example.question);
            messages.push(Message::assistant(answer));
            let whole = model.template.encode(&model.tokenizer, &messages, false)?;
            let written = whole.strip_prefix(prompt.as_slice()).ok_or_else(|| {
                RecipeError::example(
                    example,
                    "the template writes the question otherwise once it is answered".into(),
                )
            })?;
            written[..turn_end(model, written)].to_vec()
        }
    };
    if tokens.is_empty() {
        return Err(RecipeError::example(example, "an empty answer".into()));
    }
    fitting(model, example, Datum::completion(&prompt, &tokens))
}

/// A datum that the model's context holds.
pub(super) fn fitting(
    model: &TextModel,
    example: &Example,
    datum: Datum,
) -> Result<Datum, RecipeError> {
    let context = model.decoder.config().max_position_embeddings as usize;
    match datum.input.len() {
        tokens if tokens > context => {
            let reason = format!("{tokens} tokens, and the model's context is {context}");
            Err(RecipeError::example(example, reason))
        }
        _ => Ok(datum),
    }
}

/// Where an answer ends: with the token that ends a turn. What the template writes behind it (a
/// line break) is never sampled, and so not learned.
fn turn_end(model: &TextModel, written: &[i64]) -> usize {
    let end_tokens = &model.decoder.config().eos_token_ids;
    let last = written.iter().rposition(|token| end_tokens.contains(token));
    last.map_or(written.len(), |at| at + 1)
}

/// A conversation of which some messages are learned.
fn learned_turns(
    model: &TextModel,
    example: &Example,
    messages: &[Message],
    learned: &[usize],
) -> Result<Datum, RecipeError> {
    let encode = |messages: &[Message], answering| {
        model.template.encode(&model.tokenizer, messages, answering)
    };
    let tokens = encode(messages, false)?;
    let mut weights = vec![0.0; tokens.len()];
    for &place in learned {
        // The template alone knows where an answer begins and ends: where the conversation before
        // it ends, once with the call to answer and once with the answer.
        let before = encode(&messages[..place], true)?;
        let after = encode(&messages[..=place], false)?;
        if !tokens.starts_with(&before) || !tokens.starts_with(&after) {
            let reason = format!(
                "the template writes message {} otherwise once others follow it",
                place + 1
            );
            return Err(RecipeError::example(example, reason));
        }
        let end = before.len() + turn_end(model, &after[before.len()..]);
        weights[before.len()..end].fill(1.0);
    }
    fitting(model, example, Datum::text(&tokens, &weights))
}
