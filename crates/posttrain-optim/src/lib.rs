//! Optimizers over named tensors, and how their learning rate moves.
//!
//! [`AdamW`] is torch's, with its constants given at each step as [`AdamParams`]: the learning rate, the decays, the norm that
//! gradients are clipped to, and what they are multiplied with first. [`AdamWConfig`] is what a
//! configuration file has of them, [`Schedule`] a factor on the learning rate.
//!
//! ```
//! use posttrain_optim::{AdamParams, AdamW};
//! use tch::{Kind, Tensor};
//!
//! let leaf = Tensor::from_slice(&[1f32, -2.0]).set_requires_grad(true);
//! let mut optimizer = AdamW::new(vec![("x".into(), leaf.shallow_clone())])?;
//!
//! (&leaf * &leaf).sum(Kind::Float).backward();
//! let report = optimizer.step(&AdamParams { learning_rate: 0.1, ..AdamParams::default() })?;
//! // The gradient is (2, −4); the first step of Adam goes the learning rate against its sign.
//! assert!((report.grad_norm - 20f64.sqrt()).abs() < 1e-6);
//! assert!((leaf.double_value(&[0]) - 0.9).abs() < 1e-6 && (leaf.double_value(&[1]) + 1.9).abs() < 1e-6);
//! # Ok::<(), posttrain_optim::OptimError>(())
//! ```

mod adamw;
mod config;
mod error;
mod schedule;

pub use adamw::{AdamW, StepReport};
pub use config::{AdamParams, AdamWConfig};
pub use error::OptimError;
pub use schedule::Schedule;
