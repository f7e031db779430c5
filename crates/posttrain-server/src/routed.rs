//! A run's specialists behind its router, as one model.

use crate::ServerError;
use crate::refusal::Refusal;
use posttrain_experiment::ServedRun;
use posttrain_model::TextModel;
use posttrain_recipes::PromptStyle;
use posttrain_rollout::PolicySnapshot;
use posttrain_router::{Question, Router};
use std::path::Path;
use std::sync::mpsc;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// The name that clients ask for the routed model by.
pub(crate) const ROUTED: &str = "routed";

/// Who answers a question.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    /// The specialist's domain.
    pub label: String,
    /// How probable the router finds it.
    pub confidence: f64,
    /// The specialist.
    pub policy: PolicySnapshot,
}

/// What the router's thread hands over once it is ready.
struct Opened {
    specialists: Vec<(String, PolicySnapshot)>,
    generalist: Option<(String, PolicySnapshot)>,
    labels: Vec<String>,
    prompt: PromptStyle,
    stop: Vec<String>,
}

type Asked = (String, oneshot::Sender<Result<(usize, f64), Refusal>>);

/// A run's outcome in service. The router has a thread of its own.
pub(crate) struct RoutedModel {
    specialists: Vec<(String, PolicySnapshot)>,
    generalist: Option<(String, PolicySnapshot)>,
    questions: mpsc::Sender<Asked>,
    prompt: PromptStyle,
    stop: Vec<String>,
}

impl RoutedModel {
    /// Reads a run's folder; returns once its router is fitted.
    pub fn open(folder: &Path, model: &TextModel, runtime: Handle) -> Result<Self, ServerError> {
        let (questions, asked) = mpsc::channel::<Asked>();
        let (ready, opened) = mpsc::channel();
        let folder = folder.to_owned();
        let model = model.clone();
        let serve = move || {
            let run = match ServedRun::open(&folder, &model, runtime) {
                Ok(run) => run,
                Err(error) => {
                    // Whoever waits for it hears why.
                    let _ = ready.send(Err(error));
                    return;
                }
            };
            let labels = run.router.labels().to_vec();
            let router = run.router;
            let _ = ready.send(Ok(Opened {
                specialists: run.specialists,
                generalist: run.generalist,
                labels,
                prompt: run.prompt,
                stop: run.sampling.stop,
            }));
            for (text, answer) in asked {
                let _ = answer.send(decide(&*router, text));
            }
        };

        let spawned = std::thread::Builder::new().name("router".into()).spawn(serve);
        spawned.map_err(|source| ServerError::Io { path: "router".into(), source })?;
        let Ok(opened) = opened.recv() else {
            let source = std::io::Error::other("the router's thread ended");
            return Err(ServerError::Io { path: "router".into(), source });
        };
        let Opened { mut specialists, generalist, labels, prompt, stop } = opened?;
        // In the order of the router's labels, by which it decides.
        specialists.sort_by_key(|(name, _)| labels.iter().position(|label| label == name));
        Ok(Self { specialists, generalist, questions, prompt, stop })
    }

    /// A question as the run put it to its models.
    pub fn encode(&self, question: &str, model: &TextModel) -> Result<Vec<i64>, Refusal> {
        let encoded = self.prompt.encode(question, &model.tokenizer, &model.template);
        encoded.map_err(|error| Refusal::server(&error))
    }

    /// The texts that ended its answers.
    pub fn stop(&self) -> &[String] {
        &self.stop
    }

    /// Sends a question to a specialist.
    pub async fn route(&self, question: String) -> Result<Route, Refusal> {
        let (answer, decided) = oneshot::channel();
        let gone = || Refusal::server(&std::io::Error::other("the router's thread has ended"));
        self.questions.send((question, answer)).map_err(|_| gone())?;
        let (label, confidence) = decided.await.map_err(|_| gone())??;
        let (label, policy) = self.specialists.get(label).ok_or_else(gone)?.clone();
        Ok(Route { label, confidence, policy })
    }

    /// The models that can be asked by name, beside the routed one.
    pub fn models(&self) -> impl Iterator<Item = &(String, PolicySnapshot)> {
        self.specialists.iter().chain(&self.generalist)
    }
}

fn decide(router: &dyn Router, text: String) -> Result<(usize, f64), Refusal> {
    let decisions = router.route(&[Question::new("request", text)]);
    let decisions = decisions.map_err(|error| Refusal::server(&error))?;
    match decisions.first() {
        Some(decision) => Ok((decision.label, decision.confidence())),
        None => Err(Refusal::server(&std::io::Error::other("the router gave no decision"))),
    }
}
