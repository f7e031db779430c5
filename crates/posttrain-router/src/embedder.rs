//! The `Embedder` trait: texts as vectors.

use ndarray::Array2;

use crate::RouterError;

/// Turns texts into vectors. [`HashedNgrams`](crate::HashedNgrams) needs no model; a local language
/// model may be another.
///
/// ```
/// use posttrain_router::{Embedder, HashedNgrams};
///
/// let embedder = HashedNgrams::default();
/// assert_eq!(embedder.embed(&["What is 7 + 5?", ""])?.dim(), (2, embedder.dimension()));
/// # Ok::<(), posttrain_router::RouterError>(())
/// ```
pub trait Embedder {
    /// `[texts.len(), dimension]`, one row a text, all finite.
    ///
    /// # Errors
    /// Whatever kept the embedder from any of them; [`RouterError::foreign`] carries an
    /// implementor's own error.
    fn embed(&self, texts: &[&str]) -> Result<Array2<f32>, RouterError>;

    /// The length of a vector.
    fn dimension(&self) -> usize;

    /// The embedder's name: of a model, the checkpoint's. A saved classifier is loaded only beside
    /// an embedder of the same name, dimension and settings.
    fn name(&self) -> &str;

    /// Everything beside the name that vectors depend on, in any form that stays the same from run
    /// to run.
    fn settings(&self) -> String {
        String::new()
    }
}

macro_rules! forward {
    ($pointer:ty) => {
        impl<E: Embedder + ?Sized> Embedder for $pointer {
            fn embed(&self, texts: &[&str]) -> Result<Array2<f32>, RouterError> {
                (**self).embed(texts)
            }

            fn dimension(&self) -> usize {
                (**self).dimension()
            }

            fn name(&self) -> &str {
                (**self).name()
            }

            fn settings(&self) -> String {
                (**self).settings()
            }
        }
    };
}

forward!(&E);
forward!(Box<E>);
forward!(std::sync::Arc<E>);
