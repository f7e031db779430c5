//! Teachers: who says of each token of an answer how likely it is.

use crate::RecipeError;
use crate::model_source::ModelSource;
use crate::prompt::PromptStyle;
use futures::future::try_join_all;
use posttrain_chat::client::{JsonClient, JsonClientConfig};
use posttrain_data::Example;
use posttrain_lora::LoraConfig;
use posttrain_model::TextModel;
use posttrain_train::{Datum, Trainer, TrainerConfig};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Who the teacher is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum TeacherConfig {
    /// The base itself, which reads another prompt than the policy does: shots, instructions.
    Prompted {
        /// How the teacher is asked.
        prompt: PromptStyle,
    },
    /// A policy on the same base.
    Adapter {
        /// Its PEFT folder.
        path: PathBuf,
    },
    /// Another model with the same tokenizer.
    Model {
        /// Which.
        model: ModelSource,
    },
    /// A model with the same tokenizer behind an OpenAI-compatible server, asked at `/completions`
    /// with token ids, `echo` and `logprobs` (vLLM, llama.cpp's Python server).
    Server {
        /// The model's name there.
        model: String,
        /// The server, its key, how long a call may take.
        client: Box<JsonClientConfig>,
    },
    /// A teacher for each domain.
    ByDomain {
        /// Who teaches it.
        teachers: BTreeMap<String, Self>,
    },
}

/// Says how likely tokens are behind a question.
pub struct Teacher {
    reader: Reader,
    style: PromptStyle,
    model: TextModel,
}

/// Whose log-probabilities are asked.
enum Reader {
    /// The trainer's own base.
    Base,
    /// An adapter on the same base.
    Adapter(Trainer),
    /// Another base.
    Model(Trainer),
    /// A model elsewhere.
    Server(Server),
    /// Another teacher, by the example's domain.
    ByDomain(BTreeMap<String, Teacher>),
}

impl TeacherConfig {
    /// The teacher of a policy over `model` that is asked in the style `style`.
    ///
    /// # Errors
    /// [`RecipeError::Lora`] or [`RecipeError::Model`] for files that cannot be read;
    /// [`RecipeError::Config`] for a model with another tokenizer; [`RecipeError::Chat`] for a
    /// server's configuration that is out of range.
    pub fn build(&self, model: &TextModel, style: &PromptStyle) -> Result<Teacher, RecipeError> {
        let config = TrainerConfig::default();
        let asked_alike = |reader| Teacher { reader, style: style.clone(), model: model.clone() };
        Ok(match self {
            Self::Prompted { prompt } => {
                Teacher { reader: Reader::Base, style: prompt.clone(), model: model.clone() }
            }
            Self::Adapter { path } => {
                let base = &model.decoder;
                let adapter = base.load_adapter(path)?;
                asked_alike(Reader::Adapter(Trainer::with_adapter(
                    base.clone(),
                    adapter,
                    config,
                    0,
                )?))
            }
            Self::Model { model: source } => {
                let other = source.load()?;
                let same = other.tokenizer.to_json()? == model.tokenizer.to_json()?;
                let expected = "a model with the policy's tokenizer: token is compared with token";
                RecipeError::check("teacher.model", same, expected, &source.path.display())?;
                let lora = LoraConfig { rank: 1, ..LoraConfig::default() };
                let reader = Trainer::new(other.decoder.clone(), &lora, config, 0)?;
                Teacher { reader: Reader::Model(reader), style: style.clone(), model: other }
            }
            Self::Server { model: name, client } => {
                asked_alike(Reader::Server(Server::new(name, (**client).clone())?))
            }
            Self::ByDomain { teachers } => {
                let mut built = BTreeMap::new();
                for (domain, teacher) in teachers {
                    built.insert(domain.clone(), teacher.build(model, style)?);
                }
                asked_alike(Reader::ByDomain(built))
            }
        })
    }
}

/// An answer to an example's question, token by token.
#[derive(Debug, Clone, Copy)]
pub struct TokenAnswer<'a> {
    /// Whose question is answered.
    pub example: &'a Example,
    /// The answer's token ids.
    pub tokens: &'a [i64],
}

impl Teacher {
    /// Each answer's tokens' log-probabilities, nats, at the temperature that the answers were drawn
    /// at. `own` is the trainer of the policy, whose base a prompted teacher reads with.
    ///
    /// # Errors
    /// [`RecipeError::Example`] names an example whose domain has no teacher;
    /// [`RecipeError::Config`] a temperature that is not 1, where a server is asked, which knows no
    /// other;
    /// [`RecipeError::Chat`] or [`RecipeError::TeacherReply`] tells what a server answered instead;
    /// else whatever the model does.
    pub fn logprobs(
        &self,
        answers: &[TokenAnswer<'_>],
        temperature: f64,
        own: &Trainer,
    ) -> Result<Vec<Vec<f32>>, RecipeError> {
        match &self.reader {
            Reader::ByDomain(teachers) => return by_domain(teachers, answers, temperature, own),
            Reader::Server(_) => RecipeError::check(
                "sampling.temperature",
                temperature == 1.0,
                "1 with a teacher behind a server",
                &temperature,
            )?,
            Reader::Base | Reader::Adapter(_) | Reader::Model(_) => {}
        }

        let mut texts = Vec::with_capacity(answers.len());
        for answer in answers {
            let question = &answer.example.question;
            let prompt =
                self.style.encode(question, &self.model.tokenizer, &self.model.template)?;
            texts.push((prompt, answer.tokens));
        }
        let datums = || -> Vec<Datum> {
            let datum = |(prompt, tokens): &(Vec<i64>, &[i64])| {
                Datum::completion(prompt, tokens).with_temperature(temperature)
            };
            texts.iter().map(datum).collect()
        };
        Ok(match &self.reader {
            Reader::Base => own.forward_base(&datums())?.logprobs,
            Reader::Adapter(teacher) => teacher.forward(&datums())?.logprobs,
            Reader::Model(teacher) => teacher.forward_base(&datums())?.logprobs,
            Reader::Server(server) => server.logprobs(&texts)?,
            Reader::ByDomain(_) => Vec::new(),
        })
    }
}

/// Each answer read by the teacher of its domain, in the order of the answers.
fn by_domain(
    teachers: &BTreeMap<String, Teacher>,
    answers: &[TokenAnswer<'_>],
    temperature: f64,
    own: &Trainer,
) -> Result<Vec<Vec<f32>>, RecipeError> {
    let mut places: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (place, answer) in answers.iter().enumerate() {
        places.entry(&answer.example.domain).or_default().push(place);
    }

    let mut logprobs = vec![Vec::new(); answers.len()];
    for (domain, places) in places {
        let Some(teacher) = teachers.get(domain) else {
            let known = teachers.keys().cloned().collect::<Vec<_>>().join(", ");
            let reason = format!("no teacher for its domain `{domain}`; there are: {known}");
            return Err(RecipeError::example(answers[places[0]].example, reason));
        };
        let asked: Vec<_> = places.iter().map(|&place| answers[place]).collect();
        for (place, own) in places.into_iter().zip(teacher.logprobs(&asked, temperature, own)?) {
            logprobs[place] = own;
        }
    }
    Ok(logprobs)
}

/// A model behind a server.
struct Server {
    client: JsonClient,
    model: String,
    runtime: tokio::runtime::Runtime,
}

impl Server {
    fn new(model: &str, config: JsonClientConfig) -> Result<Self, RecipeError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|source| RecipeError::Runtime { source })?;
        Ok(Self { client: config.build()?, model: model.to_owned(), runtime })
    }

    fn logprobs(&self, texts: &[(Vec<i64>, &[i64])]) -> Result<Vec<Vec<f32>>, RecipeError> {
        let asked = texts.iter().map(|(prompt, tokens)| self.read(prompt, tokens));
        self.runtime.block_on(try_join_all(asked))
    }

    /// Has the server read a text whose end is the answer. It writes one token of its own, which
    /// some servers insist on, and which is not looked at.
    async fn read(&self, prompt: &[i64], tokens: &[i64]) -> Result<Vec<f32>, RecipeError> {
        let text = [prompt, tokens].concat();
        let body = json!({
            "model": self.model,
            "prompt": text,
            "max_tokens": 1,
            "temperature": 0.0,
            "echo": true,
            "logprobs": 1,
        });
        let reply = self.client.post("completions", &body, text.len() as u64 + 1).await?;
        let logprobs = &reply["choices"][0]["logprobs"]["token_logprobs"];
        let read = answered(logprobs, prompt.len()..text.len());
        read.map_err(|reason| RecipeError::TeacherReply { model: self.model.clone(), reason })
    }
}

/// The log-probabilities at some places of a reply's list.
fn answered(list: &Value, places: std::ops::Range<usize>) -> Result<Vec<f32>, String> {
    let list = list.as_array().ok_or("has no `choices[0].logprobs.token_logprobs`")?;
    // One token of its own may follow, or none.
    if list.len() != places.end && list.len() != places.end + 1 {
        return Err(format!(
            "has {} log-probabilities for a text of {} tokens: the server reads other tokens, or \
             does not know `echo`",
            list.len(),
            places.end
        ));
    }
    let logprob = |place: usize| {
        let value = list[place].as_f64().map(|value| value as f32);
        let expected = || format!("has {} as the log-probability of token {place}", list[place]);
        value.filter(|value| value.is_finite() && *value <= 1e-3).ok_or_else(expected)
    };
    places.map(logprob).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_that_is_not_about_the_text_is_refused_in_words() {
        let read = |list| answered(&list, 1..3);
        assert_eq!(read(json!([null, -0.5, -1.5, -9.0])).unwrap(), [-0.5, -1.5]);
        assert_eq!(read(json!([null, -0.5, -1.5])).unwrap(), [-0.5, -1.5]);
        let refused = |list| read(list).unwrap_err();
        assert!(refused(json!(null)).contains("token_logprobs"));
        assert!(refused(json!([-0.5])).contains("1 log-probabilities for a text of 3"));
        assert!(refused(json!([null, -0.5, -1.5, -1.0, -1.0])).contains("5 log-prob"));
        assert!(
            refused(json!([null, null, -1.5])).contains("null as the log-probability of token 1")
        );
        assert!(refused(json!([null, -0.5, 3.0])).contains("3.0"));
        assert!(refused(json!([null, -0.5, -1e300])).contains("token 2"));
    }
}
