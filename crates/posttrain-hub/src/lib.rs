//! Models from the Hugging Face hub.
//!
//! [`fetch`] brings a model's configuration, tokenizer and safetensors into the cache that Python's
//! `huggingface_hub` uses, and gives the folder, which is then like any local one. A revision is
//! resolved to its commit once, and every file is taken at that commit. Shards come in parallel;
//! what was cut off goes on where it was; each large file's SHA-256 is checked against the hub's.
//! With `HF_HUB_OFFLINE=1` nothing is asked of the network.
//!
//! A pickle is never fetched: it can run code when it is opened.
//!
//! ```no_run
//! use posttrain_hub::{HubConfig, HubModel, NoProgress, fetch};
//!
//! let model = HubModel::parse("Qwen/Qwen3-0.6B@main")?;
//! let fetched = fetch(&model, &HubConfig::from_env()?, &NoProgress)?;
//! println!("{} at {}", fetched.folder.display(), fetched.commit);
//! # Ok::<(), posttrain_hub::HubError>(())
//! ```

mod config;
mod download;
mod error;
mod listing;
mod model;
mod progress;
mod transfer;
mod verify;

pub use config::{Files, HubConfig};
pub use download::{Fetched, fetch};
pub use error::HubError;
pub use model::HubModel;
pub use progress::{DownloadProgress, NoProgress};
