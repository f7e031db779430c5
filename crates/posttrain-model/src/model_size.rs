//! How large a model is, before anything of it is read.

use crate::{ModelConfig, ModelError, Quantize};
use std::fmt;
use std::path::PathBuf;
use tch::Kind;

/// A model's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelSize {
    /// Parameters.
    pub parameters: i64,
    /// Parameters that a token passes through.
    pub active_parameters: i64,
    /// Bytes of the files; 0 where there are none yet.
    pub file_bytes: u64,
    /// Bytes of the weights in memory.
    pub memory_bytes: i64,
}

impl ModelSize {
    /// The size of a configuration, its frozen linear layers kept as `quantize` says and the rest
    /// in `kind`.
    ///
    /// ```
    /// use posttrain_model::{ModelConfig, ModelSize, Quantize};
    /// use tch::Kind;
    ///
    /// let config = ModelConfig::tiny();
    /// let size = ModelSize::of(&config, Quantize::None, Kind::BFloat16);
    /// assert_eq!(size.memory_bytes, 2 * config.parameter_count());
    /// assert!(ModelSize::of(&config, Quantize::Nf4, Kind::BFloat16).memory_bytes < size.memory_bytes);
    /// ```
    #[must_use]
    pub fn of(config: &ModelConfig, quantize: Quantize, kind: Kind) -> Self {
        let blocks = || config.modules().into_iter().filter(|m| !m.head);
        let weights = || blocks().map(|m| m.in_features * m.out_features);

        let linear: i64 = weights().sum();
        let quantized: i64 = weights().map(|n| quantize.bytes(n, kind)).sum();
        let rest = Quantize::None.bytes(config.parameter_count() - linear, kind);

        // Routers compute in f32, beside what is counted above.
        let routers = config
            .experts
            .as_ref()
            .map_or(0, |e| e.layers.len() as i64 * e.count * config.hidden_size);
        let routers = routers * (4 - kind.elt_size_in_bytes() as i64);

        Self {
            parameters: config.parameter_count(),
            active_parameters: config.active_parameter_count(),
            file_bytes: 0,
            memory_bytes: quantized + rest + routers,
        }
    }

    /// The same with the bytes of its files.
    pub(crate) fn with_files(self, files: &[PathBuf]) -> Result<Self, ModelError> {
        let mut file_bytes = 0;
        for path in files {
            let metadata = std::fs::metadata(path)
                .map_err(|source| ModelError::Io { path: path.clone(), source })?;
            file_bytes += metadata.len();
        }
        Ok(Self { file_bytes, ..self })
    }
}

impl fmt::Display for ModelSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.4e} parameters", self.parameters as f64)?;
        if self.active_parameters != self.parameters {
            write!(f, " ({:.4e} a token)", self.active_parameters as f64)?;
        }
        if self.file_bytes > 0 {
            write!(f, ", {:.3} GB on the disk", self.file_bytes as f64 / 1e9)?;
        }
        write!(f, ", {:.3} GB in memory", self.memory_bytes as f64 / 1e9)
    }
}
