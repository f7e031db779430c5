//! A policy in training, taken through whole steps or parts of them.

use crate::questions::{BenchModel, Question, questions};
use anyhow::Result;
use posttrain::lora::{Adapter, LoraConfig, LoraPair};
use posttrain::loss::{AdvantageConfig, PolicyObjective};
use posttrain::rollout::{
    Completion, Engine, EngineConfig, PolicySnapshot, Request, SamplingParams,
};
use posttrain::train::{Datum, DeadGroups, GradientCheckpointing, Trainer, TrainerConfig};

/// The adapter's rank.
pub const RANK: i64 = 128;

/// Completions by prompt, in the order of the prompts.
pub struct Rollout {
    groups: Vec<(Question, Vec<i64>, Vec<Completion>)>,
    /// Tokens sampled.
    pub tokens: usize,
}

/// Rank 128 on every linear layer, learning rate 1e-5, at most 64 tokens a completion, as in
/// `peers/trl_grpo.py`.
pub struct TrainedPolicy<'m> {
    model: &'m BenchModel,
    trainer: Trainer,
    questions: Vec<Question>,
    next: usize,
    seed: u64,
    /// MiB of activations that sampling may record.
    record_mib: usize,
}

impl<'m> TrainedPolicy<'m> {
    /// A fresh policy. Completions without an advantage are computed as well, since the peer
    /// computes them.
    ///
    /// # Errors
    /// When memory fails.
    pub fn new(model: &'m BenchModel, dead_groups: DeadGroups) -> Result<Self> {
        Self::with_config(model, TrainerConfig { dead_groups, ..TrainerConfig::default() })
    }

    /// The same, trained on the activations that sampling recorded, up to 2 GiB.
    ///
    /// # Errors
    /// When memory fails.
    pub fn recording(model: &'m BenchModel, dead_groups: DeadGroups) -> Result<Self> {
        Ok(Self { record_mib: 2048, ..Self::new(model, dead_groups)? })
    }

    /// The same, its activations computed a second time instead of kept.
    ///
    /// # Errors
    /// When memory fails.
    pub fn checkpointing(model: &'m BenchModel, dead_groups: DeadGroups) -> Result<Self> {
        let checkpointing = GradientCheckpointing::Blocks;
        Self::with_config(
            model,
            TrainerConfig { dead_groups, checkpointing, ..TrainerConfig::default() },
        )
    }

    fn with_config(model: &'m BenchModel, config: TrainerConfig) -> Result<Self> {
        let lora = lora(RANK);
        let trainer = Trainer::new(model.decoder.clone(), &lora, config, 1)?;
        Ok(Self { model, trainer, questions: questions()?, next: 0, seed: 0, record_mib: 0 })
    }

    /// Samples `samples` completions for each of the next `prompts` questions, of `tokens` tokens.
    ///
    /// # Errors
    /// What the engine says.
    pub fn sample(
        &mut self,
        prompts: usize,
        samples: usize,
        tokens: std::ops::RangeInclusive<usize>,
    ) -> Result<Rollout> {
        let snapshot = self.trainer.snapshot()?;
        let asked = (0..prompts)
            .map(|i| self.questions[(self.next + i) % self.questions.len()].clone())
            .collect();
        self.next += prompts;
        self.seed += 1;
        sample(
            self.model,
            asked,
            &[Some(snapshot)],
            Sampled { samples, tokens, seed: self.seed, record_mib: self.record_mib },
        )
    }

    /// Scores a rollout (1 where the answer stands in the completion), compares within groups, and
    /// takes a step.
    ///
    /// # Errors
    /// What the trainer says.
    pub fn train(&mut self, rollout: &Rollout) -> Result<()> {
        self.trainer.forward_backward(&rollout.datums()?, &PolicyObjective::default())?;
        let params = self.trainer.adam_params(1e-5);
        self.trainer.optim_step(&params)?;
        Ok(())
    }
}

impl Rollout {
    fn datums(&self) -> Result<Vec<Datum>> {
        let reward =
            |q: &Question, c: &Completion| Some(f32::from(u8::from(c.text.contains(&q.answer))));
        let rewards: Vec<_> =
            self.groups.iter().flat_map(|(q, _, c)| c.iter().map(|c| reward(q, c))).collect();
        let sizes: Vec<_> = self.groups.iter().map(|g| g.2.len()).collect();
        let advantages = AdvantageConfig::default().advantages(&rewards, &sizes)?;
        let mut advantages = advantages.values.into_iter();

        let mut datums = Vec::new();
        for (_, prompt, completions) in &self.groups {
            for completion in completions {
                datums.push(Datum::sampled(
                    prompt,
                    completion,
                    advantages.next().unwrap_or_default(),
                ));
            }
        }
        Ok(datums)
    }
}

fn lora(rank: i64) -> LoraConfig {
    LoraConfig { rank, alpha: 32.0, ..LoraConfig::default() }
}

/// How completions are sampled.
struct Sampled {
    /// Completions a question.
    samples: usize,
    /// Tokens a completion.
    tokens: std::ops::RangeInclusive<usize>,
    seed: u64,
    record_mib: usize,
}

/// Samples completions for questions, the policies (or the base alone) taking them in turn.
fn sample(
    model: &BenchModel,
    asked: Vec<Question>,
    policies: &[Option<PolicySnapshot>],
    Sampled { samples, tokens, seed, record_mib }: Sampled,
) -> Result<Rollout> {
    let config = EngineConfig {
        max_rows: (asked.len() * samples).min(128),
        record_mib,
        ..EngineConfig::default()
    };
    let mut engine = Engine::new(model.decoder.clone(), Some(model.tokenizer.clone()), config)?;
    let mut groups = Vec::with_capacity(asked.len());
    for (index, question) in asked.into_iter().enumerate() {
        let prompt = model.prompt(&question.question)?;
        let seed = seed << 32 | index as u64;
        let params = SamplingParams {
            min_tokens: *tokens.start(),
            max_tokens: *tokens.end(),
            seed,
            ..SamplingParams::default()
        };
        let policy = policies[index % policies.len()].clone();
        engine.submit(Request::new(prompt.clone(), params).samples(samples).policy(policy));
        groups.push((question, prompt, Vec::new()));
    }
    let mut failed = None;
    engine.run(|outcome| match outcome.result {
        Ok(completion) => groups[outcome.request].2.push(completion),
        Err(error) => failed = Some(error),
    })?;
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(Rollout { groups, tokens: engine.stats().sampled_tokens }),
    }
}

impl BenchModel {
    /// Samples `rows / 8` questions, eight completions each, exactly `tokens` tokens long, without
    /// an adapter.
    ///
    /// # Errors
    /// What the engine says.
    pub fn decode(&self, rows: usize, tokens: usize) -> Result<Rollout> {
        self.decode_by(&[None], rows, tokens)
    }

    /// The same, the adapters taking the questions in turn.
    ///
    /// # Errors
    /// What the engine says.
    pub fn decode_by(
        &self,
        policies: &[Option<PolicySnapshot>],
        rows: usize,
        tokens: usize,
    ) -> Result<Rollout> {
        let asked = questions()?.into_iter().take(rows / 8).collect();
        sample(
            self,
            asked,
            policies,
            Sampled { samples: 8, tokens: tokens..=tokens, seed: 1, record_mib: 0 },
        )
    }

    /// Adapters on every linear layer that change what the model says: their `B`s are not zero.
    ///
    /// # Errors
    /// When memory fails.
    pub fn adapters(&self, count: u64, rank: i64) -> Result<Vec<Option<PolicySnapshot>>> {
        let adapter = |seed| {
            let fresh =
                Adapter::init(&lora(rank), self.decoder.modules(), seed, self.decoder.device())?;
            let filled = |pair: &LoraPair| {
                let numbers = crate::floats(pair.b.numel());
                let b = (tch::Tensor::from_slice(&numbers).view_as(&pair.b) - 0.5) * 1e-3;
                LoraPair { a: pair.a.detach(), b: b.to_device(pair.b.device()), scale: pair.scale }
            };
            let pairs = fresh.layers().map(|(_, pair)| Some(filled(pair))).collect();
            let adapter = Adapter::from_pairs(lora(rank), self.decoder.modules(), pairs)?;
            Ok(Some(PolicySnapshot::new(adapter.snapshot(self.decoder.kind())?, seed)))
        };
        (0..count).map(adapter).collect()
    }
}
