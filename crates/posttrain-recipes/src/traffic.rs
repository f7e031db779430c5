//! Learning from traffic: what is served is kept, what is said of it is a reward, and a candidate
//! serves only after a gate that can say no.
//!
//! [`Traffic`] is what a server talks to: it says which policy answers a request, takes down what
//! was answered, and joins feedback to it by id. A [`Learner`] on a thread of its own makes a
//! candidate of every so many completions with feedback, puts it to the gate ([`GateTest`]), and
//! has it served, goes on from it, or throws it away. Whatever happens is in a folder, in files
//! that are appended to or replaced whole, so that a process may be killed at any moment: no
//! feedback that was acknowledged is lost, and no policy is served that the gate did not pass.
//!
//! What is not said is not zero: a completion without feedback is not trained on, and the shares of
//! completions that have some are told by version ([`TrafficState`]).

mod config;
mod gate;
mod held_out;
mod learner;
mod ledger;
mod log;
mod pool;
mod service;
mod trial;

pub use config::{CanaryConfig, HeldOutConfig, LearnConfig, Swap, TrafficConfig};
pub use gate::{Compared, GateConfig, GateOutcome, GateTest, Verdict};
pub use held_out::HeldOut;
pub use learner::Learner;
pub use ledger::{Decision, Learned, LedgerLine, RollBack};
pub use log::{CaptureConfig, Deleted, Feedback, FeedbackSource, Served, TrafficLine, TrafficLog};
pub use pool::Joined;
pub use service::{Chosen, Traffic, TrafficState, VersionState};
