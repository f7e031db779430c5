//! The arithmetic of post-training language models: advantages, objectives with their gradients,
//! fused log-probabilities and the token sampler.
//!
//! The crate knows no model and samples no text. It takes numbers (rewards, log-probabilities) and
//! three tensors of somebody's model (logits, hidden states, the output head), and gives tokens,
//! losses and gradients. Everything works on flat vectors: the sequences of a batch stand one after
//! the other, without padding.
//!
//! # The way through it
//!
//! | step | item | gives |
//! | --- | --- | --- |
//! | draw tokens | [`sample`] | token and log-probability of each row of logits |
//! | compare completions | [`AdvantageConfig`] | an advantage for each completion of a group |
//! | say what is known | [`LossBatch`] | sequences, weights, the sampler's log-probabilities, advantages, a reference's |
//! | choose a rule | an [`Objective`] | loss as sum and denominator, its gradient by the log-probabilities, metrics |
//! | apply it | [`Head::step`] | scores, the outcome, and the gradient by the hidden states |
//! | into the model | [`surrogate`] | a scalar whose `backward()` continues from there |
//!
//! | objective | for |
//! | --- | --- |
//! | [`PolicyObjective`] | policy gradients: a [`PolicyLoss`], an [`Aggregation`], a KL penalty, an entropy bonus, a [`Correction`](policy::Correction) |
//! | [`CrossEntropy`] | supervised fine-tuning, with weights of either sign |
//! | [`preference`] | DPO, IPO, SimPO, KTO |
//! | [`distillation`] | forward and reverse KL to a teacher, over given targets or sampled tokens |
//! | [`CustomObjective`] | a closure of one's own |
//! | [`ObjectiveConfig`] | whichever of these a configuration file names |
//!
//! [`Head::step`] is one walk over the vocabulary where the objective is one of tokens, with two
//! products instead of three; [`Head::scores`] and [`Head::backward`] are its halves.
//!
//! # Kernels
//!
//! On the CPU all of it is native: vectorized loops, compiled for the baseline and for AVX2 and
//! chosen at run time, in parallel by `rayon`, with results that do not depend on the number of
//! threads. Elsewhere the head is libtorch's operations. Gradients are closed forms: autograd is
//! needed for the model alone.
//!
//! # Exact micro-batches
//!
//! A loss is a sum and a denominator, apart. Count the whole step's [`StepTotals`] first, give them
//! to each micro-batch, and the gradients of the micro-batches add up to that of one batch. What a
//! micro-batch must not cut is the objective's [`Scope`].
//!
//! # With a head
//!
//! One training step on two completions of one prompt, of which the first was rewarded:
//!
//! ```
//! use posttrain_loss::{
//!     AdvantageConfig, Head, HeadOptions, LossBatch, PolicyObjective, Step, TokenAdvantages, surrogate,
//! };
//! use tch::{Device, Kind, Tensor};
//!
//! // What sampling gave: completions of two tokens and of one, over a vocabulary of four.
//! let tokens = Tensor::from_slice(&[2i64, 0, 1]);
//! let sampling_logprobs = [0.25f32.ln(); 3];
//! let advantages = AdvantageConfig::GroupMean {}.advantages(&[Some(1.0), Some(0.0)], &[2])?;
//! let batch = LossBatch {
//!     sampling_logprobs: Some(&sampling_logprobs),
//!     advantages: Some(TokenAdvantages::PerSequence(&advantages.values)), // 1/2 and −1/2
//!     ..LossBatch::of(&[2, 1])
//! };
//!
//! // What the model gives: hidden states with a graph behind them (here a leaf), and its head.
//! let hidden = Tensor::zeros([3, 4], (Kind::Float, Device::Cpu)).set_requires_grad(true);
//! let weight = Tensor::eye(4, (Kind::Float, Device::Cpu));
//!
//! let head = Head::new(&weight, HeadOptions::default())?;
//! let objective = PolicyObjective::default();
//! let step = Step { objective: &objective, batch: &batch, totals: &batch.totals()? };
//! let step = head.step(&hidden, &tokens, step)?;
//! surrogate(&hidden, &step.gradients.hidden)?.backward();
//!
//! // The policy is the one that sampled, so every ratio is 1 and the loss is the mean of −A: −(1/2 + 1/2 − 1/2) / 3.
//! assert_eq!(step.outcome.metrics.policy.ratio_mean(), Some(1.0));
//! assert!((step.outcome.loss() - -1.0 / 6.0).abs() < 1e-6);
//! // The gradient by the first token's logit of itself: −A / 3 · (1 − 1/4).
//! assert!((hidden.grad().double_value(&[0, 2]) - -0.125).abs() < 1e-6);
//! # Ok::<(), posttrain_loss::LossError>(())
//! ```
//!
//! # With log-probabilities of one's own
//!
//! Who has log-probabilities with a graph behind them, from whatever model, needs no head: evaluate
//! an objective on their values, and [`LossOutcome::to_scalar`] is the loss as a tensor whose
//! `backward()` goes on into that graph.
//!
//! ```
//! use posttrain_loss::{CrossEntropy, LossBatch, Objective};
//! use tch::{Kind, Tensor};
//!
//! // Two tokens' logits over a vocabulary of two, and the log-probabilities of their targets by autograd.
//! let logits = Tensor::from_slice(&[0f32, 0.0, 0.0, 0.0]).view([2, 2]).set_requires_grad(true);
//! let targets = Tensor::from_slice(&[0i64, 1]).unsqueeze(-1);
//! let logprobs = logits.log_softmax(-1, Kind::Float).gather(-1, &targets, false).squeeze_dim(-1);
//!
//! let batch = LossBatch::of(&[2]);
//! let values = Vec::<f32>::try_from(logprobs.detach()).expect("a vector of f32");
//! let outcome = CrossEntropy::default().evaluate(&batch, &values, None, &batch.totals()?)?;
//! let loss = outcome.to_scalar(&logprobs)?;
//! loss.backward();
//!
//! assert!((loss.double_value(&[]) - 2f64.ln()).abs() < 1e-6);
//! assert!((logits.grad().double_value(&[0, 0]) - -0.25).abs() < 1e-6); // −(1 − 1/2) / 2
//! # Ok::<(), posttrain_loss::LossError>(())
//! ```

pub mod advantage;
mod aggregate;
mod batch;
mod blocks;
mod cross_entropy;
pub mod custom;
pub mod distillation;
pub mod error;
pub mod head;
pub mod kl;
mod layout;
pub mod metrics;
pub mod objective;
pub mod policy;
pub mod preference;
pub mod sampler;

pub use advantage::{AdvantageConfig, Advantages};
pub use aggregate::{Aggregation, StepTotals};
pub use batch::{LossBatch, TokenAdvantages};
pub use cross_entropy::CrossEntropy;
pub use custom::{CustomLoss, CustomObjective};
pub use error::LossError;
pub use head::{Head, HeadAdapter, HeadOptions, Step, surrogate};
pub use kl::KlPenalty;
pub use metrics::{LossMetrics, PolicyMetrics};
pub use objective::{LossOutcome, Objective, ObjectiveConfig, Scope};
pub use policy::{PolicyLoss, PolicyObjective};
pub use sampler::{RowSampling, sample, sample_each};
