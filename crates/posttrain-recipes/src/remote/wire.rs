//! What is sent to a server and what comes back, as vLLM and SGLang have it.

use posttrain_chat::FinishReason;
use posttrain_rollout::{Completion, SamplingParams};
use serde_json::{Value, json};

/// Whose protocol a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// vLLM's form of OpenAI's `/v1/completions`.
    Vllm,
    /// SGLang's own `/generate`.
    Sglang,
}

impl Dialect {
    /// Where samples are asked for.
    pub fn endpoint(self) -> &'static str {
        match self {
            Self::Vllm => "completions",
            Self::Sglang => "generate",
        }
    }

    /// What a server has to be started with.
    pub fn how_to_start(self) -> &'static str {
        match self {
            Self::Vllm => {
                "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1, `--enable-lora` and `--logprobs-mode \
                 processed_logprobs`"
            }
            Self::Sglang => {
                "`--enable-lora`, `--max-lora-rank` and `--lora-target-modules all`, and without \
                 SGLANG_RETURN_ORIGINAL_LOGPROB"
            }
        }
    }

    /// Whether a status says that an adapter cannot be loaded, now or later.
    pub fn refuses_load(self, status: u16) -> bool {
        match self {
            Self::Vllm => status == 404,
            Self::Sglang => matches!(status, 400 | 404 | 422),
        }
    }

    /// Whether an answer says that the server does not know the adapter of a name, which it was
    /// given, as one that was started anew.
    pub fn forgot(self, status: u16, body: &str, name: Option<&str>) -> bool {
        let names_it = || name.is_some_and(|name| body.contains(name));
        status == 404 || (self == Self::Sglang && status == 400 && names_it())
    }

    /// A request for samples; `model` is an adapter's name, none for the base. Every parameter is
    /// given: a server has defaults of the model's `generation_config.json` for what is left out.
    pub fn request(
        self,
        model: Option<&str>,
        prompt: &[i64],
        samples: usize,
        params: &SamplingParams,
    ) -> Value {
        let mut sampling = json!({
            "temperature": params.temperature,
            "top_k": params.top_k.map_or(-1, |k| k as i64),
            "top_p": params.top_p.unwrap_or(1.0),
            "min_p": params.min_p.unwrap_or(0.0),
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
        });
        if !params.stop.is_empty() {
            sampling["stop"] = json!(params.stop);
        }
        if !params.stop_token_ids.is_empty() {
            sampling["stop_token_ids"] = json!(params.stop_token_ids);
        }

        let mut body = match self {
            Self::Vllm => {
                sampling["prompt"] = json!(prompt);
                sampling["n"] = json!(samples);
                sampling["max_tokens"] = json!(params.max_tokens);
                sampling["min_tokens"] = json!(params.min_tokens);
                // The chosen token's alone.
                sampling["logprobs"] = json!(0);
                sampling["return_token_ids"] = json!(true);
                // vLLM takes no more.
                sampling["seed"] = json!(params.seed >> 1);
                sampling
            }
            Self::Sglang => {
                sampling["max_new_tokens"] = json!(params.max_tokens);
                sampling["min_new_tokens"] = json!(params.min_tokens);
                // As so many requests: of one with `n` SGLang loses count of who uses an adapter, and
                // then waits for ever to unload it (sgl-project/sglang#25864).
                let prompts = vec![prompt; samples];
                json!({ "input_ids": prompts, "sampling_params": sampling, "return_logprob": true })
            }
        };
        if let Some(name) = model {
            let field = if self == Self::Vllm { "model" } else { "lora_path" };
            body[field] = json!(name);
        }
        body
    }

    /// Reads the answer, in the order of the samples; what is wrong with it, in words.
    pub fn read(
        self,
        reply: &Value,
        samples: usize,
        vocab: i64,
        version: u64,
    ) -> Result<Vec<Completion>, String> {
        // SGLang puts one sample in no list.
        let one = std::slice::from_ref(reply);
        let (list, choices) = match self {
            Self::Vllm => ("choices", reply["choices"].as_array().map(Vec::as_slice)),
            Self::Sglang if reply.is_object() => ("", Some(one)),
            Self::Sglang => ("", reply.as_array().map(Vec::as_slice)),
        };
        let choices = choices.ok_or_else(|| format!("has no list `{list}`"))?;
        if choices.len() != samples {
            return Err(format!("has {} choices where {samples} were asked for", choices.len()));
        }

        let mut completions: Vec<Option<Completion>> = vec![None; samples];
        for (place, choice) in choices.iter().enumerate() {
            let index = choice["index"].as_u64().map_or(place, |index| index as usize);
            let drawn = match self {
                Self::Vllm => Drawn::of_vllm(choice),
                Self::Sglang => Drawn::of_sglang(choice),
            };
            let completion = drawn
                .and_then(|drawn| drawn.completion(vocab, version))
                .map_err(|reason| format!("has in `{list}[{place}]` {reason}"))?;
            match completions.get_mut(index) {
                Some(slot @ None) => *slot = Some(completion),
                _ => return Err(format!("has `{list}[{place}].index` {index} twice, or beyond")),
            }
        }
        Ok(completions.into_iter().flatten().collect())
    }
}

/// What a server says that it has drawn.
struct Drawn<'a> {
    tokens: Vec<&'a Value>,
    logprobs: Vec<&'a Value>,
    finish_reason: &'a Value,
}

impl<'a> Drawn<'a> {
    fn of_vllm(choice: &'a Value) -> Result<Self, String> {
        let tokens = choice["token_ids"]
            .as_array()
            .ok_or("no list `token_ids`: the server does not know `return_token_ids`")?;
        let logprobs = choice["logprobs"]["token_logprobs"]
            .as_array()
            .ok_or("no list `logprobs.token_logprobs`")?;
        Ok(Self {
            tokens: tokens.iter().collect(),
            logprobs: logprobs.iter().collect(),
            finish_reason: &choice["finish_reason"],
        })
    }

    /// A token is `[log-probability, id, text]` there.
    fn of_sglang(choice: &'a Value) -> Result<Self, String> {
        let meta = &choice["meta_info"];
        let drawn = meta["output_token_logprobs"]
            .as_array()
            .ok_or("no list `meta_info.output_token_logprobs`")?;
        let finish_reason = &meta["finish_reason"]["type"];
        if finish_reason == "abort" {
            return Err(format!("a sample that was given up: {}", meta["finish_reason"]));
        }
        Ok(Self {
            tokens: drawn.iter().map(|token| &token[1]).collect(),
            logprobs: drawn.iter().map(|token| &token[0]).collect(),
            finish_reason,
        })
    }

    fn completion(self, vocab: i64, version: u64) -> Result<Completion, String> {
        let id = |value: &Value| value.as_i64().filter(|id| (0..vocab).contains(id));
        let tokens: Vec<i64> = self
            .tokens
            .iter()
            .map(|value| id(value).ok_or_else(|| format!("the token id {value} of {vocab}")))
            .collect::<Result<_, _>>()?;
        if self.logprobs.len() != tokens.len() {
            let logprobs = self.logprobs.len();
            return Err(format!("{logprobs} log-probabilities of {} tokens", tokens.len()));
        }
        let logprob = |value: &&Value| {
            let read = value.as_f64().map(|value| value as f32);
            let fits = read.filter(|read| read.is_finite() && *read <= 1e-3);
            fits.map(|read| read.min(0.0)).ok_or_else(|| format!("the log-probability {value}"))
        };
        let logprobs: Vec<f32> = self.logprobs.iter().map(logprob).collect::<Result<_, _>>()?;
        if tokens.is_empty() {
            return Err("no token".into());
        }
        Ok(Completion {
            // Its tokens' is made here: what a server says of it could be other words.
            text: String::new(),
            finish_reason: FinishReason::from_word(self.finish_reason.as_str().unwrap_or("")),
            policy_version: version,
            token_versions: vec![version; tokens.len()],
            recording: None,
            tokens,
            logprobs,
        })
    }
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
        let read = Dialect::Vllm.read(&reply, 2, 10, 4).unwrap();
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
            Dialect::Vllm.read(&json!({"choices": [changed]}), 1, 10, 4).unwrap_err()
        };
        assert!(with("token_ids", Value::Null).contains("return_token_ids"));
        assert!(with("token_ids", json!([3, 10])).contains("the token id 10 of 10"));
        assert!(with("token_ids", json!([])).contains("2 log-probabilities of 0 tokens"));
        assert!(with("logprobs.token_logprobs", json!([-0.5, null])).contains("null"));
        assert!(with("logprobs.token_logprobs", json!([-0.5, 2.0])).contains("2.0"));
        let read = |reply| Dialect::Vllm.read(&reply, 2, 10, 4).unwrap_err();
        assert!(read(json!({})).contains("no list `choices`"));
        assert!(read(json!({"choices": [choice(0)]})).contains("1 choices where 2"));
        assert!(read(json!({"choices": [choice(0), choice(0)]})).contains("twice"));
    }

    #[test]
    fn sglangs_answers_are_read_alone_and_in_a_list() {
        let sample = |reason: &str| {
            json!({
                "text": "7",
                "meta_info": {
                    "finish_reason": {"type": reason},
                    "output_token_logprobs": [[-0.5, 3, null], [-1.5, 4, null]],
                },
            })
        };
        let alone = Dialect::Sglang.read(&sample("length"), 1, 10, 4).unwrap();
        assert_eq!((&alone[0].tokens, &alone[0].logprobs), (&vec![3, 4], &vec![-0.5, -1.5]));
        assert_eq!(alone[0].finish_reason, FinishReason::Length);
        let both = json!([sample("stop"), sample("stop")]);
        assert_eq!(Dialect::Sglang.read(&both, 2, 10, 4).unwrap().len(), 2);

        let refused = |reply: Value| Dialect::Sglang.read(&reply, 1, 10, 4).unwrap_err();
        assert!(refused(both).contains("2 choices where 1"));
        assert!(refused(sample("abort")).contains("given up"));
        assert!(refused(json!({"text": "7"})).contains("meta_info.output_token_logprobs"));
        assert!(refused(json!("7")).contains("no list"));
    }

    #[test]
    fn nothing_is_left_to_a_servers_defaults() {
        let params = SamplingParams { stop: vec!["x".into()], ..SamplingParams::default() };
        let vllm = Dialect::Vllm.request(Some("v1"), &[1, 2], 3, &params);
        let sglang = Dialect::Sglang.request(Some("v1"), &[1, 2], 3, &params);
        assert_eq!((&vllm["model"], &sglang["lora_path"]), (&json!("v1"), &json!("v1")));
        assert_eq!((&vllm["prompt"], &vllm["n"]), (&json!([1, 2]), &json!(3)));
        assert_eq!(sglang["input_ids"], json!([[1, 2], [1, 2], [1, 2]]));
        for sampling in [&vllm, &sglang["sampling_params"]] {
            for (field, value) in [("top_k", json!(-1)), ("top_p", json!(1.0))] {
                assert_eq!(sampling[field], value, "{field}");
            }
            assert_eq!(sampling["stop"], json!(["x"]));
        }
    }
}
