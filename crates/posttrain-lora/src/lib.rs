//! Low-rank adapters (LoRA) beside a frozen base: configuration, adapted linear layers, PEFT files.
//!
//! LoRA (Hu et al., 2021, <https://arxiv.org/abs/2106.09685>) leaves a weight `W: [out, in]` as it
//! is and trains `ΔW = s·B·A`, with `A: [R, in]`, `B: [out, R]` and the scale `s = α/R` (or `α/√R`,
//! rank-stabilized). An adapted layer computes `x·Wᵀ + s·(x·Aᵀ)·Bᵀ`, so that one base in memory
//! serves any number of adapters.
//!
//! The crate knows no architecture. A model lists the linear layers that can be adapted as
//! [`ModuleSpec`]s, in an order of its own; an [`Adapter`] holds the pairs `(A, B)` for those that
//! its [`LoraConfig`] targets; an [`AdapterView`] is the same pairs in the kind that the model
//! computes in; and an [`AdaptedLinear`] takes the views of the rows it is given through
//! [`RowAdapters`].
//!
//! ```
//! use posttrain_lora::{AdaptedLinear, Adapter, LoraConfig, ModuleSpec, RowAdapters};
//! use tch::{Device, Kind, Tensor};
//!
//! let modules = [ModuleSpec::new("model.layers.0.mlp.down_proj", 2, 3)];
//! let config = LoraConfig { rank: 1, alpha: 2.0, ..LoraConfig::default() };
//! let adapter = Adapter::init(&config, &modules, 7, Device::Cpu)?;
//! let layer = AdaptedLinear::new(Tensor::eye(3, (Kind::Float, Device::Cpu)).narrow(1, 0, 2), None, vec![(0, 3)])?;
//!
//! // B starts at zero: the adapted layer is the base layer until it is trained.
//! let x = Tensor::from_slice(&[1.0f32, 2.0]).view([1, 2]);
//! let view = adapter.view(Kind::Float)?;
//! let y = layer.forward(&x, &RowAdapters::all(Some(&view)))?;
//! assert_eq!(Vec::<f32>::try_from(y.view(-1)).unwrap(), [1.0, 2.0, 0.0]);
//! # Ok::<(), posttrain_lora::LoraError>(())
//! ```

mod adapter;
mod config;
mod dropout;
mod error;
mod few_rows;
mod gradients;
mod linear;
mod merge;
mod module;
mod peft;
mod row_selection;
mod rows;
mod view;

pub use adapter::{Adapter, LoraPair};
pub use config::{LoraConfig, TargetModules};
pub use error::LoraError;
pub use gradients::AdapterGradients;
pub use linear::{AdaptedLinear, MergedPart, ThinProducts};
pub use merge::merged_weight;
pub use module::ModuleSpec;
pub use peft::{load_peft, load_peft_on, save_peft};
pub use rows::{RowAdapters, Segment};
pub use view::AdapterView;
