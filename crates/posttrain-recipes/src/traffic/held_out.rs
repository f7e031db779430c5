//! Tasks that training never sees, and what policies make of them.

use super::{GateConfig, GateOutcome, GateTest, HeldOutConfig};
use crate::{
    Answer, Evaluator, PolicyQuestion, PromptForm, PromptStyle, RecipeError, Reward, RlConfig,
    Silent,
};
use posttrain_chat::{Tool, ToolFormat};
use posttrain_data::{Example, ReadConfig, read};
use posttrain_model::{ChatTemplate, TextModel};
use posttrain_rollout::{EngineConfig, FinishReason, PolicySnapshot, SamplingParams};
use posttrain_train::derive_seed;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

/// The gate's tasks, with the verifier that training never sees.
#[derive(Clone)]
pub struct HeldOut {
    /// The tasks, of one domain or several.
    pub tasks: Vec<Example>,
    /// The verifier.
    pub reward: Arc<dyn Reward>,
    /// How a task is put.
    pub prompt: PromptStyle,
    /// How an answer is drawn.
    pub sampling: SamplingParams,
    /// The engine that draws it.
    pub engine: EngineConfig,
    /// How calls of tools are written.
    pub tool_format: ToolFormat,
    /// Tools that every task offers.
    pub tools: Vec<Tool>,
}

impl HeldOut {
    /// The tasks of a configuration.
    ///
    /// # Errors
    /// [`RecipeError::Data`] names the file, line and field; [`RecipeError::Reward`] what is wrong
    /// with the verifier; [`RecipeError::Config`] tools where prompts are plain texts.
    pub fn open(config: &HeldOutConfig) -> Result<Self, RecipeError> {
        let plain = config.prompt.form == PromptForm::Plain && !config.tools.is_empty();
        let expected = "none where prompts are plain texts";
        RecipeError::check("held_out.tools", !plain, expected, &config.tools.len())?;
        Ok(Self {
            tasks: read(&config.path, &ReadConfig::default())?.examples().to_vec(),
            reward: config.reward.build()?,
            prompt: config.prompt.clone(),
            sampling: config.sampling.clone(),
            engine: config.engine.clone(),
            tool_format: config.tool_format,
            tools: config.tools.clone(),
        })
    }

    /// The tasks' domains.
    pub(crate) fn domains(&self) -> BTreeSet<&str> {
        self.tasks.iter().map(|task| task.domain.as_str()).collect()
    }

    /// Every task's prompt, which is never trained on.
    pub(crate) fn prompts(&self, model: &TextModel) -> Result<HashSet<Vec<i64>>, RecipeError> {
        let model = self.offering(model);
        let encode =
            |task: &Example| self.prompt.encode(&task.question, &model.tokenizer, &model.template);
        self.tasks.iter().map(encode).collect()
    }

    /// The model with the tasks' tools in its prompts.
    fn offering(&self, model: &TextModel) -> TextModel {
        let template =
            Arc::new(ChatTemplate::clone(&model.template).with_tools(self.tools.clone()));
        TextModel { template, ..model.clone() }
    }

    /// Puts both policies to the same tasks with the same seeds, look by look, until it is clear or
    /// the tasks run out. `number` is the decision's own, by which tasks and seeds are drawn.
    pub(crate) fn compare(
        &self,
        model: &TextModel,
        config: &GateConfig,
        number: u64,
        (candidate, present): (&PolicySnapshot, &PolicySnapshot),
        stop: &dyn Fn() -> bool,
    ) -> Result<GateTest, RecipeError> {
        // As many as there are, at most.
        let tasks = config.tasks.min(self.tasks.len());
        let config = &GateConfig { tasks, ..config.clone() };
        let mut test = GateTest::new(config, self.domains())?;
        let seed = derive_seed(self.sampling.seed, "gate", number, 0);
        let settings = RlConfig {
            seed,
            sampling: self.sampling.clone(),
            engine: self.engine.clone(),
            ..RlConfig::default()
        };
        let evaluator = Evaluator::new(
            self.offering(model),
            self.prompt.clone(),
            self.reward.clone(),
            &settings,
        )?;

        let mut long = config.long;
        for tasks in self.drawn(seed, config.tasks).chunks(config.batch) {
            let asked = tasks.iter().flat_map(|&example| {
                [candidate, present].map(|policy| PolicyQuestion { example, policy: Some(policy) })
            });
            let asked: Vec<_> = asked.collect();
            let answers = evaluator.several_answers(&asked, config.samples, &mut Silent)?;

            let long = *long.get_or_insert_with(|| usual_length(&answers) * 2);
            for (task, pair) in tasks.iter().zip(answers.chunks_exact(2)) {
                let [own, other] = [&pair[0], &pair[1]].map(|answers| {
                    answers
                        .iter()
                        .map(|answer| self.outcome(config, answer, long))
                        .collect::<Vec<_>>()
                });
                test.observe(&task.domain, &own, &other)?;
            }
            if test.verdict().is_some() || test.is_futile() || stop() {
                break;
            }
        }
        Ok(test)
    }

    /// So many tasks at most, in an order of the seed's, their domains in turns.
    fn drawn(&self, seed: u64, most: usize) -> Vec<&Example> {
        let mut tasks: Vec<&Example> = self.tasks.iter().collect();
        tasks.sort_by_cached_key(|task| derive_seed(seed, &task.id, 0, 0));
        let domains: Vec<&str> = self.domains().into_iter().collect();
        let mut queues: Vec<_> = domains
            .iter()
            .map(|domain| tasks.iter().filter(move |task| task.domain == **domain).copied())
            .collect();

        let mut drawn = Vec::with_capacity(tasks.len().min(most));
        while drawn.len() < most {
            let before = drawn.len();
            drawn.extend(queues.iter_mut().filter_map(Iterator::next));
            if drawn.len() == before {
                break;
            }
        }
        drawn.truncate(most);
        drawn
    }

    /// What an answer was like.
    fn outcome(&self, config: &GateConfig, answer: &Answer, long: usize) -> GateOutcome {
        let text = answer.response.trim_start().to_lowercase();
        let refuses = |words: &String| text.starts_with(&words.to_lowercase());
        GateOutcome {
            right: answer.is_right(),
            short: answer.tokens <= long && answer.finish_reason != FinishReason::Length,
            readable: self.tool_format.parse(&answer.response).malformed.is_empty(),
            willing: !config.refusals.iter().any(refuses),
        }
    }
}

/// What nine in ten of the present policy's answers have at most.
fn usual_length(answers: &[Vec<Answer>]) -> usize {
    let present = answers.chunks_exact(2).flat_map(|pair| &pair[1]);
    let mut lengths: Vec<usize> = present.map(|answer| answer.tokens).collect();
    lengths.sort_unstable();
    lengths.get(lengths.len() * 9 / 10).copied().unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use posttrain_reward::RewardConfig;

    fn answer(response: &str, reward: Option<f64>) -> Answer {
        Answer {
            id: "a".into(),
            domain: "math".into(),
            question: "1 + 1".into(),
            reference: "2".into(),
            response: response.into(),
            tokens: 10,
            finish_reason: FinishReason::Stop,
            reward,
            error: None,
        }
    }

    #[test]
    fn an_answer_is_what_the_verifier_and_the_guards_say_of_it() -> Result<(), RecipeError> {
        let held_out = HeldOut {
            tasks: Vec::new(),
            reward: RewardConfig::default().build()?,
            prompt: PromptStyle::default(),
            sampling: SamplingParams::default(),
            engine: EngineConfig::default(),
            tool_format: ToolFormat::Hermes,
            tools: Vec::new(),
        };
        let fine = GateOutcome { right: Some(true), short: true, readable: true, willing: true };
        let right = answer("2", Some(1.0));
        let cases = [
            (right.clone(), fine),
            (answer("2", None), GateOutcome { right: None, ..fine }),
            (answer("3", Some(0.0)), GateOutcome { right: Some(false), ..fine }),
            (answer("i cannot say", Some(1.0)), GateOutcome { willing: false, ..fine }),
            (answer("<tool_call>{\"name\"", Some(1.0)), GateOutcome { readable: false, ..fine }),
            (Answer { tokens: 11, ..right.clone() }, GateOutcome { short: false, ..fine }),
            (
                Answer { finish_reason: FinishReason::Length, ..right },
                GateOutcome { short: false, ..fine },
            ),
        ];
        for (answer, outcome) in cases {
            assert_eq!(held_out.outcome(&GateConfig::default(), &answer, 10), outcome);
        }
        Ok(())
    }
}
