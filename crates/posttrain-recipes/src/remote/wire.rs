//! What is sent to a server and what comes back, as vLLM has it.

use posttrain_chat::FinishReason;
use posttrain_rollout::{Completion, SamplingParams};
use serde_json::{Value, json};

/// A request at `/completions`; `model` is an adapter's name, none for the base.
pub(super) fn completions(
    model: Option<&str>,
    prompt: &[i64],
    samples: usize,
    params: &SamplingParams,
) -> Value {
    let mut body = json!({
        "prompt": prompt,
        "n": samples,
        "max_tokens": params.max_tokens,
        "min_tokens": params.min_tokens,
        "temperature": params.temperature,
        // The chosen token's alone.
        "logprobs": 0,
        "return_token_ids": true,
        // vLLM takes no more.
        "seed": params.seed >> 1,
    });
    let optional = [
        ("model", model.map(|name| json!(name))),
        ("top_k", params.top_k.map(|k| json!(k))),
        ("top_p", params.top_p.map(|p| json!(p))),
        ("min_p", params.min_p.map(|p| json!(p))),
        ("stop", (!params.stop.is_empty()).then(|| json!(params.stop))),
        (
            "stop_token_ids",
            (!params.stop_token_ids.is_empty()).then(|| json!(params.stop_token_ids)),
        ),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            body[name] = value;
        }
    }
    body
}

/// Reads the answer, in the order of the samples; what is wrong with it, in words.
pub(super) fn read(
    reply: &Value,
    samples: usize,
    vocab: i64,
    version: u64,
) -> Result<Vec<Completion>, String> {
    let choices = reply["choices"].as_array().ok_or("has no list `choices`")?;
    if choices.len() != samples {
        return Err(format!("has {} choices where {samples} were asked for", choices.len()));
    }
    let mut completions: Vec<Option<Completion>> = vec![None; samples];
    for (place, choice) in choices.iter().enumerate() {
        let index = choice["index"].as_u64().map_or(place, |index| index as usize);
        let completion = read_choice(choice, vocab, version)
            .map_err(|reason| format!("has in `choices[{place}]` {reason}"))?;
        match completions.get_mut(index) {
            Some(slot @ None) => *slot = Some(completion),
            _ => return Err(format!("has `choices[{place}].index` {index} twice, or beyond")),
        }
    }
    Ok(completions.into_iter().flatten().collect())
}

fn read_choice(choice: &Value, vocab: i64, version: u64) -> Result<Completion, String> {
    let ids = choice["token_ids"]
        .as_array()
        .ok_or("no list `token_ids`: the server does not know `return_token_ids`")?;
    let id = |value: &Value| value.as_i64().filter(|id| (0..vocab).contains(id));
    let tokens: Vec<i64> = ids
        .iter()
        .map(|value| id(value).ok_or_else(|| format!("the token id {value} of {vocab}")))
        .collect::<Result<_, _>>()?;
    let list = choice["logprobs"]["token_logprobs"]
        .as_array()
        .ok_or("no list `logprobs.token_logprobs`")?;
    if list.len() != tokens.len() {
        return Err(format!("{} log-probabilities of {} tokens", list.len(), tokens.len()));
    }
    let logprob = |value: &Value| {
        let read = value.as_f64().map(|value| value as f32);
        let fits = read.filter(|read| read.is_finite() && *read <= 1e-3);
        fits.map(|read| read.min(0.0)).ok_or_else(|| format!("the log-probability {value}"))
    };
    let logprobs: Vec<f32> = list.iter().map(logprob).collect::<Result<_, _>>()?;
    if tokens.is_empty() {
        return Err("no token".into());
    }
    Ok(Completion {
        // Its tokens' is made here: what a server says of it could be other words.
        text: String::new(),
        finish_reason: FinishReason::from_word(choice["finish_reason"].as_str().unwrap_or("")),
        policy_version: version,
        token_versions: vec![version; tokens.len()],
        recording: None,
        tokens,
        logprobs,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(index: usize) -> Value {
        json!({
            "index": index,
            "text": "7",
            "finish_reason": "stop",
            "token_ids": [3, 4],
            "logprobs": {"token_logprobs": [-0.5, -1.5]},
        })
    }

    #[test]
    fn choices_are_read_in_the_order_of_their_samples() {
        let reply = json!({"choices": [choice(1), choice(0)]});
        let read = read(&reply, 2, 10, 4).unwrap();
        assert_eq!((read.len(), &read[0].tokens), (2, &vec![3, 4]));
        assert_eq!(read[0].token_versions, [4, 4]);
        assert_eq!(read[0].finish_reason, FinishReason::Stop);
    }

    #[test]
    fn an_answer_of_another_form_is_refused_in_words() {
        let with = |field: &str, value: Value| {
            let mut changed = choice(0);
            match field.split_once('.') {
                Some((outer, inner)) => changed[outer][inner] = value,
                None => changed[field] = value,
            }
            read(&json!({"choices": [changed]}), 1, 10, 4).unwrap_err()
        };
        assert!(with("token_ids", Value::Null).contains("return_token_ids"));
        assert!(with("token_ids", json!([3, 10])).contains("the token id 10 of 10"));
        assert!(with("token_ids", json!([])).contains("2 log-probabilities of 0 tokens"));
        assert!(with("logprobs.token_logprobs", json!([-0.5, null])).contains("null"));
        assert!(with("logprobs.token_logprobs", json!([-0.5, 2.0])).contains("2.0"));
        let read = |reply| read(&reply, 2, 10, 4).unwrap_err();
        assert!(read(json!({})).contains("no list `choices`"));
        assert!(read(json!({"choices": [choice(0)]})).contains("1 choices where 2"));
        assert!(read(json!({"choices": [choice(0), choice(0)]})).contains("twice"));
    }
}
