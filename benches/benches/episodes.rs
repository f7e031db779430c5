//! Conversations whose tools take 50 to 500 ms (log-uniform: 195 on average): played beside each other, each going on as soon as
//! its tool has answered, and with a barrier a turn, behind which all wait for the slowest tool.
//! The model is a small one without sense; a turn is as long as it must be for sampling one turn of
//! all conversations to take half as long as a tool; reading what the tools say comes on top. Printed are seconds for all conversations,
//! and the share of the time in which the engines work.
//!
//! ```text
//! cargo bench -p benches --bench episodes
//! cargo bench -p benches --bench episodes -- 64 8     # conversations, turns
//! ```

use anyhow::{Context, Result};
use futures::FutureExt;
use futures::future::{BoxFuture, try_join_all};
use posttrain::environment::{
    Action, Actor, Budget, Environment, EnvironmentError, EpisodeConfig, EpisodeError,
    EpisodePlayer, Observation, Opening, PolicyActor, Step, TurnRequest,
};
use posttrain::model::{ChatTemplate, Decoder, ModelConfig, TextModel, TextTokenizer};
use posttrain::rollout::service::{SampleRequest, SamplingService, SamplingServiceConfig};
use posttrain::rollout::{Completion, EngineConfig, Request, SamplingParams, derive_seed};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tch::{Device, Kind};
use tokio::sync::Barrier;

const WORDS: i64 = 512;
const OPENING: usize = 48; // tokens
const ANSWER: usize = 16; // tokens of what a tool says
const TOOL: [f64; 2] = [0.05, 0.5]; // seconds
const ROUNDS: usize = 3;

/// A tool at every turn, which takes its time and says some tokens.
struct Waits {
    seed: u64,
    turn: u64,
    turns: u64,
}

impl Waits {
    fn draw(&self, what: &str, index: u64) -> u64 {
        derive_seed(self.seed, what, self.turn, index)
    }

    fn tokens(&self, count: usize) -> Observation {
        let token = |index| (1 + self.draw("token", index as u64) % (WORDS as u64 - 1)) as i64;
        Observation::Tokens((0..count).map(token).collect())
    }

    fn latency(&self) -> Duration {
        let share = self.draw("latency", 0) as f64 / u64::MAX as f64;
        Duration::from_secs_f64(TOOL[0] * (TOOL[1] / TOOL[0]).powf(share))
    }
}

impl Environment for Waits {
    fn start(&mut self) -> BoxFuture<'_, Result<Opening, EnvironmentError>> {
        let opening = Opening::new(self.tokens(OPENING));
        async move { Ok(opening) }.boxed()
    }

    fn act<'a>(&'a mut self, _: Action<'a>) -> BoxFuture<'a, Result<Step, EnvironmentError>> {
        async move {
            tokio::time::sleep(self.latency()).await;
            self.turn += 1;
            Ok(match self.turn == self.turns {
                true => Step::done(0.0),
                false => Step::next(self.tokens(ANSWER)),
            })
        }
        .boxed()
    }
}

/// Writes a turn once all conversations have come to it.
struct AllTogether {
    actor: PolicyActor,
    barrier: Barrier,
}

impl Actor for AllTogether {
    fn write<'a>(
        &'a self,
        turn: TurnRequest<'a>,
    ) -> BoxFuture<'a, Result<Completion, EpisodeError>> {
        async move {
            self.barrier.wait().await;
            self.actor.write(turn).await
        }
        .boxed()
    }
}

/// Two million weights, and a word for each token.
fn model() -> Result<TextModel> {
    let config = ModelConfig {
        vocab_size: WORDS,
        hidden_size: 192,
        intermediate_size: 512,
        num_hidden_layers: 4,
        num_attention_heads: 6,
        num_key_value_heads: 2,
        head_dim: 32,
        max_position_embeddings: 4096,
        ..ModelConfig::tiny()
    };
    let vocabulary: serde_json::Map<_, _> =
        (0..WORDS).map(|word| (format!("w{word}"), word.into())).collect();
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "w1"},
    });
    let decoder = Decoder::random(&config, 1, Kind::Float, Device::Cpu)?;
    let tokenizer =
        TextTokenizer::from_json(tokenizer.to_string().as_bytes(), Path::new("words"), WORDS)?;
    let template = ChatTemplate::new("{% for m in messages %}{{ m.content }} {% endfor %}")?;
    Ok(TextModel::new(decoder, tokenizer, template))
}

struct Bench {
    model: TextModel,
    service: SamplingService,
    conversations: usize,
    turns: u64,
}

impl Bench {
    fn params(tokens: usize) -> SamplingParams {
        SamplingParams { max_tokens: tokens, min_tokens: tokens, ..SamplingParams::default() }
    }

    /// Seconds to sample so many tokens for each conversation.
    fn sampling(&self, tokens: usize) -> Result<f64> {
        let began = Instant::now();
        let client = self.service.client();
        let streams = (0..self.conversations as u64).map(|seed| {
            let opening = Waits { seed, turn: 0, turns: 1 }.tokens(OPENING);
            let Observation::Tokens(prompt) = opening else { unreachable!("it was made so") };
            client.submit_blocking(SampleRequest::new(Request::new(prompt, Self::params(tokens))))
        });
        let streams: Vec<_> = streams.collect::<Result<_, _>>()?;
        for stream in streams {
            let outcome = stream.wait().pop().context("an outcome")?;
            outcome.result?;
        }
        Ok(began.elapsed().as_secs_f64())
    }

    /// Seconds for all conversations, and the share of them in which the engines worked.
    async fn play(&self, actor: Arc<dyn Actor>, tokens: usize) -> Result<(f64, f64)> {
        let config = EpisodeConfig {
            budget: Budget { turns: self.turns as usize, ..Budget::default() },
            sampling: Self::params(tokens),
            ..EpisodeConfig::default()
        };
        let player = EpisodePlayer::new(self.model.clone(), actor, config)?;
        let before = self.service.client().stats().busy;
        let began = Instant::now();
        let play = async |seed: u64| {
            let mut environment = Waits { seed, turn: 0, turns: self.turns };
            player.play(&mut environment, "policy", seed).await
        };
        let played = try_join_all((0..self.conversations as u64).map(play)).await?;
        let seconds = began.elapsed().as_secs_f64();
        assert!(played.iter().all(|trajectory| trajectory.turns.len() == self.turns as usize));

        let busy = (self.service.client().stats().busy - before).as_secs_f64();
        Ok((seconds, busy / self.service.engines() as f64 / seconds))
    }
}

fn main() -> Result<()> {
    let numbers: Vec<u64> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    let conversations = numbers.first().copied().unwrap_or(256) as usize;
    let turns = numbers.get(1).copied().unwrap_or(24);

    let model = model()?;
    let engine = EngineConfig {
        max_rows: conversations,
        keep_tokens: conversations * 1024,
        ..EngineConfig::default()
    };
    let config = SamplingServiceConfig { engine, ..SamplingServiceConfig::default() };
    let service =
        SamplingService::start(model.decoder.clone(), Some(model.tokenizer.clone()), config)?;
    let bench = Bench { model, service, conversations, turns };

    // The first is warm-up.
    bench.sampling(8)?;
    let (few, many) = (bench.sampling(8)?, bench.sampling(40)?);
    let mean = (TOOL[1] - TOOL[0]) / (TOOL[1] / TOOL[0]).ln();
    let tokens = (0.5 * mean * 32.0 / (many - few).max(1e-6)).clamp(4.0, 256.0) as usize;
    println!(
        "{conversations} conversations of {turns} turns of {tokens} tokens; {} engines",
        bench.service.engines()
    );

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for round in 0..ROUNDS {
        let actor = PolicyActor::base(bench.service.client());
        let together = AllTogether { actor: actor.clone(), barrier: Barrier::new(conversations) };
        let (own, busy) = runtime.block_on(bench.play(Arc::new(actor), tokens))?;
        let (all, idle) = runtime.block_on(bench.play(Arc::new(together), tokens))?;
        println!(
            "round {round}: each by itself {own:.2} s, engines busy {busy:.2}; a barrier a turn {all:.2} s, {idle:.2}; {:.2} times",
            all / own
        );
    }
    Ok(())
}
