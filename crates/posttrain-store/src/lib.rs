//! Files and folders that survive the death of whoever writes them. The crate knows nothing of what
//! it stores.
//!
//! - [`replace_file`] and [`replace_folder`] put a file or a folder in place whole or not at all;
//!   [`recover_folder`] repairs what a death in between left, and [`lock_folder`] keeps a second
//!   process out.
//! - [`Versions`] are numbered folders beside each other, sealed with checksums: the newest good one
//!   counts.
//! - [`write_json`], [`read_json`]: values as files, whose errors name the line and the field.
//! - [`JsonLog`] is appended to, and survives a torn last line; [`read_log`] reads along.
//! - [`Difference`] is where two configurations first differ: what a folder was begun with it goes
//!   on with.
//!
//! ```
//! use posttrain_store::{StoreError, lock_folder, read_json, recover_folder, replace_folder, write_json};
//!
//! let run = tempfile::tempdir().unwrap();
//! let _lock = lock_folder(run.path())?;
//! let state = run.path().join("state");
//! recover_folder(&state)?;
//!
//! // A step's state is there whole or not at all, whenever the process dies.
//! for step in [1u64, 2] {
//!     replace_folder(&state, |fresh| write_json(&fresh.join("step.json"), &step))?;
//! }
//! assert_eq!(read_json::<u64>(&state.join("step.json"))?, 2);
//! # Ok::<(), StoreError>(())
//! ```

mod difference;
mod error;
mod file;
mod folder;
mod json;
mod log;
mod versions;

pub use difference::Difference;
pub use error::StoreError;
pub use file::{replace_file, replace_file_with};
pub use folder::{FolderLock, lock_folder, recover_folder, replace_folder};
pub use json::{read_json, read_json_if_there, write_json, write_json_pretty};
pub use log::{JsonLog, read_log};
pub use versions::{Version, Versions};
