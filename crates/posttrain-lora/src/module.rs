//! A linear layer that can be adapted, as a model lists it.

/// A linear layer of a base model that an adapter may target.
///
/// The order of a model's specs is the order of an adapter's layers: position `i` in the list is
/// the index that [`crate::AdaptedLinear`] uses.
///
/// ```
/// let module = posttrain_lora::ModuleSpec::new("model.layers.3.self_attn.q_proj", 576, 192);
/// assert_eq!(module.name(), "q_proj");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleSpec {
    /// The module's path in the Hugging Face layout, without `.weight`.
    pub path: String,
    /// Features in: the weight's second dimension.
    pub in_features: i64,
    /// Features out: the weight's first dimension.
    pub out_features: i64,
    /// Whether only some tokens reach it (an expert of a mixture): without any it has no gradient,
    /// and that is no fault.
    pub routed: bool,
    /// Whether it is the output head, which has an adapter only where its name is among the
    /// targets.
    pub head: bool,
}

impl ModuleSpec {
    /// A spec from its path and its weight's two dimensions.
    pub fn new(path: impl Into<String>, in_features: i64, out_features: i64) -> Self {
        Self { path: path.into(), in_features, out_features, routed: false, head: false }
    }

    /// The same, reached by some tokens only.
    #[must_use]
    pub fn routed(self) -> Self {
        Self { routed: true, ..self }
    }

    /// The same as the output head.
    #[must_use]
    pub fn head(self) -> Self {
        Self { head: true, ..self }
    }

    /// The last part of the path, which is what `target_modules` usually names.
    #[must_use]
    pub fn name(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or(&self.path)
    }
}
