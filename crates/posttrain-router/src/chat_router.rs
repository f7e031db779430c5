//! `ChatRouter`: the label that a chat model names.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use futures::{StreamExt, stream};
use posttrain_chat::{ChatError, ChatModel, ChatRequest, ChatResponse};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;

use crate::chat_answer::read_label;
use crate::excerpt::excerpt;
use crate::{ChatConfidence, ChatRouterConfig, Decision, Question, Router, RouterError, labels};

/// Characters of an unreadable answer that its error shows.
const SHOWN: usize = 200;

/// Asks a chat model for the label of each question, several at a time, by constrained generation
/// where the server has it.
///
/// An answer that names no label, or several, is an error (or the configured fallback, counted),
/// and a failure of the server is one always: neither is ever a label. [`route`](Router::route)
/// waits for the runtime, so that async callers had better go by `spawn_blocking`; with one label
/// there is nothing to ask.
///
/// ```
/// use std::sync::Arc;
/// use posttrain_chat::{ChatRequest, ChatResponse, from_fn};
/// use posttrain_router::{ChatRouterConfig, Question, Router};
///
/// let model = from_fn("stub", async |request: ChatRequest| {
///     let has_digits = request.messages[1].text().contains(|c: char| c.is_ascii_digit());
///     Ok(ChatResponse::from_text(if has_digits { "math" } else { "no idea" }))
/// });
/// let runtime = tokio::runtime::Runtime::new()?;
/// let router = ChatRouterConfig::new(["math", "social"]).build(Arc::new(model), runtime.handle().clone())?;
/// let decisions = router.ask(&[Question::new("a", "7 + 5?"), Question::new("b", "Who?")]);
/// assert_eq!(decisions[0].as_ref().unwrap().label, 0);
/// assert!(decisions[1].as_ref().unwrap_err().to_string().contains("answered \"no idea\""));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ChatRouter {
    config: ChatRouterConfig,
    answers: Vec<String>,
    fallback: Option<usize>,
    fallbacks: AtomicUsize,
    model: Arc<dyn ChatModel>,
    runtime: Handle,
}

/// A question's place, with what came of it and how long that took.
type Answered = (usize, Result<ChatResponse, ChatError>, f64);

impl ChatRouter {
    pub(crate) fn new(
        config: ChatRouterConfig,
        model: Arc<dyn ChatModel>,
        runtime: Handle,
    ) -> Result<Self, RouterError> {
        let fallback = config.fallback.as_ref();
        let fallback = fallback
            .map(|label| labels::index(&config.labels, label, || "`fallback`".to_owned()))
            .transpose()?;

        Ok(Self {
            answers: config.answers(),
            config,
            fallback,
            fallbacks: AtomicUsize::new(0),
            model,
            runtime,
        })
    }

    /// How many answers named no label so far, and went to the fallback.
    pub fn fallbacks(&self) -> usize {
        self.fallbacks.load(Ordering::Relaxed)
    }

    /// One result a question, in the same order: what failed costs its own question alone.
    pub fn ask(&self, questions: &[Question]) -> Vec<Result<Decision, RouterError>> {
        if self.answers.len() == 1 {
            return questions.iter().map(|_| Ok(Decision::certain(0, 1, 0.0))).collect();
        }

        let mut results: Vec<_> =
            questions.iter().map(|question| Err(self.cancelled(question))).collect();
        let answers = self.answers_to(questions);
        let mut wait = || {
            answers.iter().for_each(|(at, answered, seconds)| {
                results[at] = self.decide(&questions[at], answered, seconds);
            })
        };

        // A worker thread that waits must not keep others from answering.
        match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
            Ok(RuntimeFlavor::MultiThread) => block_in_place(wait),
            _ => wait(),
        }

        results
    }

    /// The answers as they come; those that never come are missing.
    fn answers_to(&self, questions: &[Question]) -> mpsc::Receiver<Answered> {
        let (sender, receiver) = mpsc::channel();
        let requests: Vec<ChatRequest> =
            questions.iter().map(|question| self.config.request(&question.text)).collect();
        let model = Arc::clone(&self.model);
        let in_flight = self.config.in_flight;

        self.runtime.spawn(async move {
            let ask = |(at, request): (usize, ChatRequest)| {
                let model = Arc::clone(&model);
                // A task of its own each, so that a panic costs one question.
                async move { tokio::spawn(ask_one(model, at, request)).await }
            };

            let mut answers =
                stream::iter(requests.into_iter().enumerate().map(ask)).buffer_unordered(in_flight);

            while let Some(answer) = answers.next().await {
                // A receiver that has gone away wants no more answers.
                if answer.is_ok_and(|answer| sender.send(answer).is_err()) {
                    return;
                }
            }
        });

        receiver
    }

    fn decide(
        &self,
        question: &Question,
        answered: Result<ChatResponse, ChatError>,
        seconds: f64,
    ) -> Result<Decision, RouterError> {
        let id = question.id.clone();
        let model = self.model.name().to_owned();
        let response = answered.map_err(|source| RouterError::Chat {
            id: id.clone(),
            model: model.clone(),
            source: source.into(),
        })?;

        let count = self.answers.len();
        match (read_label(&response, &self.answers), self.fallback) {
            (Some(label), _) => {
                let (confidence, rest) = self.confidence(&response);
                let probabilities =
                    (0..count).map(|at| if at == label { confidence } else { rest }).collect();
                Ok(Decision { label, probabilities, seconds })
            }
            (None, Some(label)) => {
                self.fallbacks.fetch_add(1, Ordering::Relaxed);
                Ok(Decision { label, probabilities: vec![1.0 / count as f64; count], seconds })
            }
            (None, None) => {
                let answer = excerpt(&response.text, SHOWN).into_owned();
                Err(RouterError::Unreadable { id, model, answer, labels: self.answers.clone() })
            }
        }
    }

    /// The probability of the label that was named, and of each other one.
    fn confidence(&self, response: &ChatResponse) -> (f64, f64) {
        let count = self.answers.len() as f64;
        let logprobs = response
            .logprobs
            .as_ref()
            .filter(|_| self.config.confidence == ChatConfidence::Logprobs);

        let named = logprobs
            .map_or(1.0, |tokens| tokens.iter().map(|token| token.logprob).sum::<f64>().exp());
        let named = if named.is_finite() { named.clamp(1.0 / count, 1.0) } else { 1.0 / count };
        (named, (1.0 - named) / (count - 1.0))
    }

    fn cancelled(&self, question: &Question) -> RouterError {
        RouterError::Cancelled { id: question.id.clone(), model: self.model.name().to_owned() }
    }
}

async fn ask_one(model: Arc<dyn ChatModel>, at: usize, request: ChatRequest) -> Answered {
    let start = Instant::now();
    let answered = model.complete(&request).await;
    (at, answered, start.elapsed().as_secs_f64())
}

impl Router for ChatRouter {
    fn name(&self) -> &str {
        self.model.name()
    }

    fn labels(&self) -> &[String] {
        &self.config.labels
    }

    fn route(&self, questions: &[Question]) -> Result<Vec<Decision>, RouterError> {
        self.ask(questions).into_iter().collect()
    }
}
