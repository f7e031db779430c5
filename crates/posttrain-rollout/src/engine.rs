//! The engine: a queue of samples, the rows that run, and the step that moves all of them on.

mod admission;

use crate::batch::Batch;
use crate::kept::KeptTexts;
use crate::policy::same_policy;
use crate::row::{Group, Row, check_prompt};
use crate::shards;
use crate::waiting::{Waiting, WaitingList};
use crate::{
    Completion, Outcome, PolicySnapshot, Request, RequestError, RequestId, RolloutError,
    SampledToken,
};
use posttrain_kernel::{PackedColumns, Workers};
use posttrain_loss::sample_each;
use posttrain_model::{Decoder, RecordedPass, TextTokenizer};
use serde::{Deserialize, Serialize};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tch::{Device, Tensor};

/// How much runs at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineConfig {
    /// Samples that are decoded side by side, 1 and up. More are faster a token, and take more
    /// memory: each row of the cache takes `2·layers·kv_heads·d·columns` numbers. On a GPU, where a
    /// step's time is that of its launches, 512 took as long as 128.
    pub max_rows: usize,
    /// Prompt tokens computed in one pass, 1 and up. A decoding step follows each, so that rows that
    /// run stand still for no longer than a pass; a longer prompt is read in several.
    pub prefill_tokens: usize,
    /// How many threads [`Engine::run`] divides the requests among, each with rows of its own: a
    /// decoding step is many small operations, and to divide each of them costs more than it saves.
    /// `Auto`: as many as leave each at least 16 rows, or 4 where [`PackedColumns`] multiplies
    /// them.
    pub workers: Workers,
    /// Tokens whose keys and values an engine keeps, for later prompts that begin alike under the
    /// same policy: the next turn of a conversation, or another question behind the same system
    /// message, computes only what is new. 0 keeps none. They take the memory of as many tokens of
    /// running rows; a service's engines share them. An engine's own workers ([`Engine::run`])
    /// keep nothing from run to run.
    pub keep_tokens: usize,
    /// MiB of activations that are recorded, all in all, for a trainer to start its backward pass
    /// from ([`crate::Completion::recording`]); 0 is none. What the budget does not hold is not
    /// recorded, nor is a prompt that was not computed in one pass, nor a model with experts.
    pub record_mib: usize,
}

impl Default for EngineConfig {
    /// 128 rows, and 4,096 prompt tokens a pass: enough to keep the processor's matrix units busy,
    /// little enough for a laptop's memory.
    fn default() -> Self {
        Self {
            max_rows: 128,
            prefill_tokens: 4096,
            workers: Workers::Auto,
            keep_tokens: 0,
            record_mib: 0,
        }
    }
}

impl EngineConfig {
    /// Checks every field's range.
    ///
    /// # Errors
    /// [`RolloutError::Config`] names the first field that is out of range.
    pub fn validate(&self) -> Result<(), RolloutError> {
        let workers = if let Workers::Count(count) = self.workers { count } else { 1 };
        let fields = [
            ("max_rows", self.max_rows),
            ("prefill_tokens", self.prefill_tokens),
            ("workers.count", workers),
        ];
        match fields.into_iter().find(|(_, value)| *value == 0) {
            Some((field, _)) => {
                Err(RolloutError::Config { field, expected: "at least 1", got: "0".into() })
            }
            None => Ok(()),
        }
    }
}

/// Rows below which another worker costs more than it brings: each reads all weights, which
/// libtorch does slowly.
fn rows_a_worker(model: &Decoder) -> usize {
    if PackedColumns::serves(model.kind(), model.device()) { 4 } else { 16 }
}

/// What an engine has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SamplingStats {
    /// Prompt tokens computed: once for what several prompts begin with.
    pub prompt_tokens: usize,
    /// Prompt tokens that were not computed, since a text that is kept begins with them.
    pub kept_tokens: usize,
    /// Tokens sampled.
    pub sampled_tokens: usize,
    /// Decoding steps.
    pub steps: usize,
    /// Time in which it computed, of all engines together.
    pub busy: Duration,
}

impl SamplingStats {
    pub(crate) fn add(&mut self, other: &Self) {
        self.prompt_tokens += other.prompt_tokens;
        self.kept_tokens += other.kept_tokens;
        self.sampled_tokens += other.sampled_tokens;
        self.steps += other.steps;
        self.busy += other.busy;
    }
}

/// What an engine has to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EngineLoad {
    /// Samples that wait for a row.
    pub waiting: usize,
    /// Rows that run.
    pub running: usize,
}

/// A generation engine over one frozen base. See the crate's documentation for how it is driven.
///
/// Any number of adapters run side by side. To replace one, hand the next snapshot to the requests
/// that follow ([`Request::policy`]): rows that run keep the one that they began with, unless
/// [`Engine::replace_policy`] moves them on, and every token carries the version that drew it. An
/// adapter that no request or row has any more is freed, if the caller keeps none.
pub struct Engine {
    pub(crate) model: Arc<Decoder>,
    pub(crate) tokenizer: Option<Arc<TextTokenizer>>,
    pub(crate) config: EngineConfig,
    pub(crate) waiting: WaitingList,
    batch: Batch,
    pub(crate) refused: Vec<Outcome>,
    submitted: usize,
    pub(crate) stats: SamplingStats,
    /// Bytes of activations recorded so far.
    recorded: usize,
    kept: KeptTexts,
}

impl Engine {
    /// An engine over a model. Without a tokenizer completions have no text, and stop texts are
    /// refused.
    ///
    /// # Errors
    /// [`RolloutError::Config`] names a field that is out of range.
    pub fn new(
        model: Arc<Decoder>,
        tokenizer: Option<Arc<TextTokenizer>>,
        config: EngineConfig,
    ) -> Result<Self, RolloutError> {
        config.validate()?;
        let kept = KeptTexts::new(config.keep_tokens);
        Ok(Self::sharing(model, tokenizer, config, kept))
    }

    /// An engine by a checked configuration, one of several that keep what they read together.
    pub(crate) fn sharing(
        model: Arc<Decoder>,
        tokenizer: Option<Arc<TextTokenizer>>,
        config: EngineConfig,
        kept: KeptTexts,
    ) -> Self {
        Self {
            kept,
            model,
            tokenizer,
            config,
            waiting: WaitingList::default(),
            batch: Batch::default(),
            refused: Vec::new(),
            submitted: 0,
            stats: SamplingStats::default(),
            recorded: 0,
        }
    }

    /// Queues a request and returns its number. One that cannot be served comes out of the next
    /// step as an outcome that says why; the others are not touched.
    pub fn submit(&mut self, request: Request) -> RequestId {
        let samples = 0..request.samples;
        self.submit_samples(request, samples)
    }

    /// Queues some of a request's samples, each of which is what it would be among all of them.
    pub(crate) fn submit_samples(&mut self, request: Request, samples: Range<usize>) -> RequestId {
        let id = self.submitted;
        self.submitted += 1;
        match self.check(&request) {
            Ok(()) if samples.is_empty() => {}
            Ok(()) => self.enqueue(id, request, samples),
            Err(error) => self.refused.push(Outcome { request: id, sample: 0, result: Err(error) }),
        }
        id
    }

    /// Whether nothing runs or waits.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.batch.is_empty() && self.refused.is_empty()
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> SamplingStats {
        self.stats
    }

    /// Lets waiting samples in and draws one token for every row; returns what has finished.
    ///
    /// # Errors
    /// [`RolloutError`] when the model, the sampler or memory fails. The engine is then of no
    /// further use.
    pub fn step(&mut self) -> Result<Vec<Outcome>, RolloutError> {
        self.step_with(&mut |_| {})
    }

    /// Does what [`Engine::step`] does, and shows every token to `watch` as it is drawn.
    ///
    /// # Errors
    /// Those of [`Engine::step`].
    pub fn step_with(
        &mut self,
        watch: &mut dyn FnMut(SampledToken),
    ) -> Result<Vec<Outcome>, RolloutError> {
        let _guard = tch::no_grad_guard();
        let mut done = std::mem::take(&mut self.refused);
        if self.is_idle() {
            return Ok(done);
        }

        let began = Instant::now();
        self.admit(&mut done, watch)?;
        if !self.batch.is_empty() {
            self.decode(&mut done, watch)?;
        }
        self.stats.busy += began.elapsed();
        Ok(done)
    }

    /// Gives a request up, whether it runs or waits: each sample that is not finished comes out of
    /// the next step with `reason` ([`RequestError::Cancelled`], for one). Returns how many there
    /// are.
    ///
    /// # Errors
    /// [`RolloutError`] when the cache cannot be laid out anew. The engine is then of no further
    /// use.
    pub fn cancel(
        &mut self,
        request: RequestId,
        reason: &RequestError,
    ) -> Result<usize, RolloutError> {
        let before = self.refused.len();
        self.waiting.retain(|waiting| {
            if waiting.group.request != request {
                return true;
            }
            let given_up = |sample| Outcome { request, sample, result: Err(reason.clone()) };
            self.refused.extend(waiting.samples.clone().map(given_up));
            false
        });

        // From the back, so that no row moves before it leaves.
        for index in (0..self.batch.len()).rev() {
            let row = &self.batch.rows_mut()[index];
            if row.group.request == request {
                let sample = row.sample;
                self.batch.leave(index)?;
                self.refused.push(Outcome { request, sample, result: Err(reason.clone()) });
            }
        }
        Ok(self.refused.len() - before)
    }

    /// Lets everything that runs or waits under the policy `old` (`None` is the base) go on under
    /// `new`, from the next token on. Rows keep the keys and values that `old` computed
    /// (PipelineRL, <https://arxiv.org/abs/2509.19128>); prompts that wait are computed by `new`,
    /// anew where they are computed in part.
    /// Returns how many samples follow it.
    pub fn replace_policy(&mut self, old: Option<&PolicySnapshot>, new: &PolicySnapshot) -> usize {
        let mut moved: Vec<(Arc<Group>, Arc<Group>)> = Vec::new();
        let mut follower = |group: &Arc<Group>| -> Option<Arc<Group>> {
            if !same_policy(group.policy.as_ref(), old) {
                return None;
            }
            let known = moved.iter().find(|(from, _)| Arc::ptr_eq(from, group));
            if let Some((_, to)) = known {
                return Some(to.clone());
            }
            let to = Arc::new(Group { policy: Some(new.clone()), ..(**group).clone() });
            moved.push((group.clone(), to.clone()));
            Some(to)
        };

        let mut samples = self.waiting.follow(&mut follower);
        for row in self.batch.rows_mut() {
            if let Some(group) = follower(&row.group) {
                samples += 1;
                row.follow(group);
            }
        }
        samples
    }

    /// Samples that wait for a row, and rows that run.
    #[must_use]
    pub fn load(&self) -> EngineLoad {
        EngineLoad { waiting: self.waiting.samples(), running: self.batch.len() }
    }

    /// Runs until nothing is left; `each` sees every outcome as it comes. On the CPU the waiting
    /// requests are divided among [`EngineConfig::workers`] threads.
    ///
    /// # Errors
    /// Those of [`Engine::step`].
    pub fn run(&mut self, mut each: impl FnMut(Outcome)) -> Result<(), RolloutError> {
        self.run_while(|outcome| {
            each(outcome);
            ControlFlow::Continue(())
        })
    }

    /// [`Engine::run`] until `each` breaks. What was not finished then is given up.
    ///
    /// # Errors
    /// Those of [`Engine::step`].
    pub fn run_while(
        &mut self,
        mut each: impl FnMut(Outcome) -> ControlFlow<()>,
    ) -> Result<(), RolloutError> {
        let workers = self.workers();
        if workers > 1 && self.batch.is_empty() && !self.waiting.has_paused() {
            return shards::run(self, workers, each);
        }
        while !self.is_idle() {
            for outcome in self.step()? {
                if each(outcome).is_break() {
                    self.give_up();
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Samples requests to their end and returns what each one asked for: its completions, in the
    /// order of its samples. Requests that were submitted before run along, and their outcomes come
    /// out of the next step.
    ///
    /// ```
    /// use posttrain_model::{Decoder, ModelConfig};
    /// use posttrain_rollout::{Engine, EngineConfig, Request, SamplingParams};
    /// use std::sync::Arc;
    ///
    /// let model = Arc::new(Decoder::random(&ModelConfig::tiny(), 7, tch::Kind::Float, tch::Device::Cpu)?);
    /// let mut engine = Engine::new(model, None, EngineConfig::default())?;
    /// let params = SamplingParams { max_tokens: 5, ..SamplingParams::default() };
    /// let groups = engine.complete([
    ///     Request::new(vec![1, 2, 3], params.clone()).samples(4),
    ///     Request::new(vec![4, 5], params).samples(2),
    /// ])?;
    /// assert_eq!((groups[0].len(), groups[1].len()), (4, 2));
    /// # Ok::<(), posttrain_rollout::RolloutError>(())
    /// ```
    ///
    /// # Errors
    /// [`RolloutError::Request`] for the first request that cannot be served, before anything is
    /// sampled, or whose policy turns out to have diverged; those of [`Engine::step`].
    pub fn complete(
        &mut self,
        requests: impl IntoIterator<Item = Request>,
    ) -> Result<Vec<Vec<Completion>>, RolloutError> {
        let requests: Vec<Request> = requests.into_iter().collect();
        for (request, asked) in requests.iter().enumerate() {
            self.check(asked).map_err(|source| RolloutError::Request { request, source })?;
        }

        let mut groups: Vec<Vec<(usize, Completion)>> =
            requests.iter().map(|_| Vec::new()).collect();
        let first = self.submitted;
        for request in requests {
            self.submit(request);
        }

        let mut others = Vec::new();
        let mut failed = None;
        self.run(|outcome| match outcome.result {
            Ok(completion) if outcome.request >= first => {
                groups[outcome.request - first].push((outcome.sample, completion));
            }
            Err(source) if outcome.request >= first => {
                failed.get_or_insert((outcome.request - first, source));
            }
            result => others.push(Outcome { result, ..outcome }),
        })?;
        self.refused.extend(others);
        if let Some((request, source)) = failed {
            return Err(RolloutError::Request { request, source });
        }

        let in_order = |mut group: Vec<(usize, Completion)>| {
            group.sort_by_key(|(sample, _)| *sample);
            group.into_iter().map(|(_, completion)| completion).collect()
        };
        Ok(groups.into_iter().map(in_order).collect())
    }

    /// How many threads the waiting requests are worth.
    fn workers(&self) -> usize {
        if self.model.device() != Device::Cpu {
            return 1;
        }
        let samples = self.waiting.samples();
        match self.config.workers {
            Workers::Count(count) => count.min(samples).max(1),
            Workers::Auto => {
                let rows = samples.min(self.config.max_rows);
                (rows / rows_a_worker(&self.model)).clamp(1, tch::get_num_threads().max(1) as usize)
            }
        }
    }

    fn give_up(&mut self) {
        self.waiting.clear();
        self.refused.clear();
        self.batch = Batch::default();
    }

    fn check(&self, request: &Request) -> Result<(), RequestError> {
        request.params.validate()?;
        if !request.params.stop.is_empty() && self.tokenizer.is_none() {
            return Err(RequestError::NoTokenizer);
        }
        check_prompt(&request.prompt, self.model.config().vocab_size, self.context())
    }

    /// Whether the budget holds what has been recorded so far.
    fn may_record(&self) -> bool {
        self.config.record_mib > 0 && self.recorded <= self.config.record_mib << 20
    }

    fn context(&self) -> usize {
        self.model.config().max_position_embeddings as usize
    }

    fn enqueue(&mut self, id: RequestId, request: Request, samples: Range<usize>) {
        let Request { prompt, samples: _, params, policy, priority, client } = request;
        let group = Group { request: id, prompt, params, policy, priority, client };
        self.waiting.push(Waiting::new(Arc::new(group), samples));
    }

    /// Keeps the text of a row that is finished.
    fn keep(&self, batch: &mut Batch, index: usize) -> Result<(), RolloutError> {
        let row = &batch.rows_mut()[index];
        let (group, text) = (row.group.clone(), row.text());
        // What an earlier policy wrote is not what this one would have read.
        let of_one_policy = !row.followed();
        if self.kept.takes(text.len())
            && of_one_policy
            && let Some(cache) = batch.text(index)?
        {
            self.kept.keep(&group, text, cache);
        }
        Ok(())
    }

    /// One forward pass over the running rows, one token each.
    fn decode(
        &mut self,
        done: &mut Vec<Outcome>,
        watch: &mut dyn FnMut(SampledToken),
    ) -> Result<(), RolloutError> {
        let mut batch = std::mem::take(&mut self.batch);
        let record = self.may_record() && batch.records();
        if let Some((logits, pass)) = batch.decode(&self.model, record)? {
            self.recorded += pass.as_ref().map_or(0, RecordedPass::bytes);
            let pass = pass.filter(|_| self.may_record());
            for (row, at) in batch.rows_mut().iter_mut().zip(0..) {
                row.record(pass.as_ref().map(|pass| pass.token(at)));
            }
            let finished = self.draw(&logits, batch.rows_mut(), watch)?;
            // From the back, so that no row moves before it leaves.
            for (index, outcome) in finished.into_iter().rev() {
                if outcome.result.is_ok() {
                    self.keep(&mut batch, index)?;
                }
                done.push(outcome);
                batch.leave(index)?;
            }
            self.stats.steps += 1;
        }
        self.batch = batch;
        Ok(())
    }

    /// Draws a token for each of `rows` from `logits: [rows, V]`; returns those that it finished,
    /// and those whose policy gives none, with their places in rising order.
    fn draw(
        &mut self,
        logits: &Tensor,
        rows: &mut [Row],
        watch: &mut dyn FnMut(SampledToken),
    ) -> Result<Vec<(usize, Outcome)>, RolloutError> {
        let draws: Vec<_> = rows.iter_mut().map(Row::draw).collect();
        let drawn = sample_each(logits, &draws)?;
        let end_tokens = &self.model.config().eos_token_ids;
        let mut finished = Vec::new();
        for (index, (row, drawn)) in rows.iter_mut().zip(drawn).enumerate() {
            let (request, sample) = (row.group.request, row.sample);
            let (token, logprob) = match drawn {
                Ok(drawn) => drawn,
                Err(problem) => {
                    let result = Err(RequestError::Diverged { problem });
                    finished.push((index, Outcome { request, sample, result }));
                    continue;
                }
            };
            self.stats.sampled_tokens += 1;
            watch(SampledToken {
                request,
                sample,
                token,
                logprob,
                policy_version: row.group.version(),
            });

            let pushed = row.push(token, logprob, end_tokens, self.tokenizer.as_deref())?;
            if let Some(completion) = pushed {
                finished.push((index, Outcome { request, sample, result: Ok(completion) }));
            }
        }
        Ok(finished)
    }
}
