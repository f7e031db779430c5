//! What the examples share: loading a model, reading JSON lines, interrupting a run, drawing its curve.

mod curve;
mod interrupt;
mod lines;
mod loaded;

pub use curve::draw_rewards;
pub use interrupt::stop_on_interrupt;
pub use lines::read_lines;
pub use loaded::{LoadedModel, ModelArgs, ModelConfig, log_to_stderr};
