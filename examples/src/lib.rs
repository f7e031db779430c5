//! What the examples share: loading a model, reading JSON lines and texts on them, verifiers by name,
//! interrupting a run, its folder, its page, fine-tuning from a configuration file, ending in words.

/// A training step frees and takes gigabytes many times over. The C library's allocator gives them
/// back to the system, which has to clear every page anew: a fifth of a step's time. jemalloc,
/// which libtorch then uses as well, keeps them for the next step (`.cargo/config.toml` tells it
/// to).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

mod agents;
mod curve;
mod exit;
mod fine_tuning;
mod interrupt;
mod lines;
mod loaded;
mod page;
mod people;
mod ranks;
mod run_folder;
mod text_line;
mod verifiers;

pub use agents::{
    AgentFile, AgentTasks, Arm, Demonstrator, Learned, Shown, TaskCounts, mean_of, over_seeds,
    task_seed, train_agents, write_summary,
};
pub use curve::draw_rewards;
pub use exit::exit_code;
pub use fine_tuning::{FineTuneFile, Place, RunExamples, fine_tune, kept_examples};
pub use interrupt::stop_on_interrupt;
pub use lines::{each_line, read_lines};
pub use loaded::{ModelArgs, log_and_trace, log_to_stderr};
pub use page::{Conversation, Curve, Page, PageSample, Said};
pub use people::{PEOPLE, name};
pub use ranks::{console, join_ranks, refuse_ranks};
pub use run_folder::{
    RunArgs, Summary, Timed, begin, check_name, evaluated_once, read_config, write,
};
pub use text_line::TextLine;
pub use verifiers::{Row, VerifierKind};
