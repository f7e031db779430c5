//! The `Router` trait: anything that sends questions to labels.

use crate::{Decision, Question, RouterError};

/// Sends each question to one of its labels. Usable as `Box<dyn Router>`; routers that wait for a
/// server do so inside.
///
/// ```
/// use posttrain_router::{ConstantRouter, Question, Router};
///
/// let router: Box<dyn Router> = Box::new(ConstantRouter::new(["math", "social"], "social")?);
/// let decisions = router.route(&[Question::new("q1", "Who founded sociology?")])?;
/// assert_eq!(router.labels()[decisions[0].label], "social");
/// # Ok::<(), posttrain_router::RouterError>(())
/// ```
pub trait Router {
    /// The router's name, for reports.
    fn name(&self) -> &str;

    /// What the places in a [`Decision`] stand for: at least one, all different.
    fn labels(&self) -> &[String];

    /// One decision a question, in the same order.
    ///
    /// # Errors
    /// Whatever kept the router from a decision about any of them.
    fn route(&self, questions: &[Question]) -> Result<Vec<Decision>, RouterError>;
}

macro_rules! forward {
    ($pointer:ty) => {
        impl<R: Router + ?Sized> Router for $pointer {
            fn name(&self) -> &str {
                (**self).name()
            }

            fn labels(&self) -> &[String] {
                (**self).labels()
            }

            fn route(&self, questions: &[Question]) -> Result<Vec<Decision>, RouterError> {
                (**self).route(questions)
            }
        }
    };
}

forward!(&R);
forward!(Box<R>);
forward!(std::sync::Arc<R>);
