//! How rotary frequencies are stretched to texts that are longer than the model was first trained
//! on.

use crate::ModelError;
use crate::fields::Fields;
use std::f64::consts::PI;

/// The stretching of a model's rotary frequencies `θ^(−2i/d)`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum RopeScaling {
    /// As they are.
    #[default]
    None,
    /// Every frequency divided by `factor` (`linear`).
    Linear {
        /// Above 0.
        factor: f64,
    },
    /// Llama 3.1's (`llama3`): low frequencies divided by `factor`, high ones kept, those between
    /// blended.
    Llama3 {
        /// Above 0.
        factor: f64,
        /// Turns within the original context below which a frequency is low.
        low_freq_factor: f64,
        /// Turns within the original context above which it is high.
        high_freq_factor: f64,
        /// The context of the first training, in tokens.
        original: f64,
    },
    /// YaRN (`yarn`; Peng et al., 2023, <https://arxiv.org/abs/2309.00071>): the same idea with a
    /// ramp over dimensions, and cosine and sine multiplied by a factor of their own.
    Yarn {
        /// Above 0.
        factor: f64,
        /// Turns within the original context above which a frequency is kept.
        beta_fast: f64,
        /// Turns below which it is divided by `factor`.
        beta_slow: f64,
        /// What cosine and sine are multiplied by.
        attention_factor: f64,
        /// The context of the first training, in tokens.
        original: f64,
        /// Whether the ramp's ends are whole dimensions.
        truncate: bool,
    },
}

/// The fields of transformers' `RopeParameters` that a kind of stretching may leave unread.
const PARAMETERS: [&str; 10] = [
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "factor",
    "high_freq_factor",
    "long_factor",
    "low_freq_factor",
    "original_max_position_embeddings",
    "short_factor",
    "truncate",
];

/// What a configuration says of a model's rotary positions.
pub(crate) struct Rope {
    /// The base of the frequencies.
    pub theta: f64,
    pub scaling: RopeScaling,
}

impl Rope {
    /// As transformers 5 reads it, whichever version wrote it: all of it stands in `rope_scaling`,
    /// or else in `rope_parameters`, and what is missing there beside the rest. The length of the
    /// first training is the other way about: the one beside the rest counts.
    pub fn read(fields: &Fields, context: i64) -> Result<Self, ModelError> {
        let older = fields.object("rope_scaling")?.filter(|rope| !rope.is_empty());
        let newer = fields.object("rope_parameters")?;
        let beside = fields.positive_or("rope_theta", 10_000.0)?;
        let original = "original_max_position_embeddings";
        let original_beside = match fields.get(original) {
            Some(_) => Some(fields.positive(original)?),
            None => None,
        };
        let Some(rope) = older.or(newer) else {
            return Ok(Self { theta: beside, scaling: RopeScaling::None });
        };

        rope.refuse_unless("partial_rotary_factor", &["1", "1.0"])?;
        let original = match original_beside {
            Some(original) => original,
            None => rope.positive_or(original, context as f64)?,
        };
        let theta = rope.positive_or("rope_theta", beside)?;
        let scaling = RopeScaling::read(&rope, original, context)?;
        rope.finish(|field| PARAMETERS.contains(&field))?;
        Ok(Self { theta, scaling })
    }
}

impl RopeScaling {
    fn read(rope: &Fields, original: f64, context: i64) -> Result<Self, ModelError> {
        let newer = rope.text("rope_type")?;
        let older = rope.text("type")?;
        match newer.or(older).unwrap_or("default") {
            "default" => Ok(Self::None),
            "linear" => Ok(Self::Linear { factor: rope.positive("factor")? }),
            "llama3" => Self::llama3(rope, original),
            "yarn" => Self::yarn(rope, original, context),
            _ => Err(rope.error(
                if newer.is_some() { "rope_type" } else { "type" },
                "default, linear, llama3 or yarn (the rest is not supported)",
            )),
        }
    }

    fn llama3(rope: &Fields, original: f64) -> Result<Self, ModelError> {
        let (low, high) = (rope.positive("low_freq_factor")?, rope.positive("high_freq_factor")?);
        if high <= low {
            return Err(rope.error("high_freq_factor", format!("above low_freq_factor = {low}")));
        }
        Ok(Self::Llama3 {
            factor: rope.positive("factor")?,
            low_freq_factor: low,
            high_freq_factor: high,
            original,
        })
    }

    fn yarn(rope: &Fields, original: f64, context: i64) -> Result<Self, ModelError> {
        let factor = rope.positive_or("factor", context as f64 / original)?;
        let by_factor = match (rope.number("mscale")?, rope.number("mscale_all_dim")?) {
            (Some(one), Some(all)) if one != 0.0 && all != 0.0 => {
                magnitude(factor, one) / magnitude(factor, all)
            }
            _ => magnitude(factor, 1.0),
        };

        Ok(Self::Yarn {
            factor,
            beta_fast: rope.positive_or("beta_fast", 32.0)?,
            beta_slow: rope.positive_or("beta_slow", 1.0)?,
            attention_factor: rope.positive_or("attention_factor", by_factor)?,
            original,
            truncate: rope.flag_or("truncate", true)?,
        })
    }

    /// The longest text that the stretched frequencies are made for, if that is beyond the model's
    /// own context.
    pub(crate) fn context(&self) -> i64 {
        match self {
            Self::Yarn { factor, original, .. } => (factor * original) as i64,
            _ => 0,
        }
    }

    /// The frequencies of a head of `head_dim` dimensions, `d/2` of them.
    ///
    /// ```
    /// use posttrain_model::RopeScaling;
    ///
    /// assert_eq!(RopeScaling::None.frequencies(100.0, 4), [1.0, 0.1]);
    /// assert_eq!(RopeScaling::Linear { factor: 2.0 }.frequencies(100.0, 4), [0.5, 0.05]);
    /// ```
    #[must_use]
    pub fn frequencies(&self, theta: f64, head_dim: i64) -> Vec<f64> {
        let plain = |i: i64| theta.powf(-2.0 * i as f64 / head_dim as f64);
        (0..head_dim / 2)
            .map(|i| plain(i) * self.stretch(i, plain(i), theta, head_dim as f64))
            .collect()
    }

    /// What cosine and sine are multiplied by.
    #[must_use]
    pub fn attention_factor(&self) -> f64 {
        if let Self::Yarn { attention_factor, .. } = self { *attention_factor } else { 1.0 }
    }

    /// What the frequency of dimension `i` is multiplied by.
    fn stretch(&self, i: i64, frequency: f64, theta: f64, head_dim: f64) -> f64 {
        match *self {
            Self::None => 1.0,
            Self::Linear { factor } => 1.0 / factor,
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original } => {
                let turns = original * frequency / (2.0 * PI);
                let kept = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor))
                    .clamp(0.0, 1.0);
                kept + (1.0 - kept) / factor
            }
            Self::Yarn { factor, beta_fast, beta_slow, original, truncate, .. } => {
                let dimension = |turns: f64| {
                    head_dim * (original / (turns * 2.0 * PI)).ln() / (2.0 * theta.ln())
                };

                let (low, high) = (dimension(beta_fast), dimension(beta_slow));
                let (low, high) = if truncate { (low.floor(), high.ceil()) } else { (low, high) };
                let (low, high) = (low.max(0.0), high.min(head_dim - 1.0));
                let high = if low == high { high + 0.001 } else { high };

                let divided = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                (1.0 - divided) + divided / factor
            }
        }
    }
}

/// YaRN's growth of attention with the factor.
fn magnitude(factor: f64, scale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_keeps_fast_frequencies_and_divides_slow_ones() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original: 8192.0,
        };
        let (plain, stretched) =
            (RopeScaling::None.frequencies(5e5, 128), scaling.frequencies(5e5, 128));
        assert_eq!(plain[0], stretched[0]);
        assert!((stretched[63] - plain[63] / 8.0).abs() < 1e-12);
        let blended =
            plain.iter().zip(&stretched).filter(|(p, s)| *s < p && **s > *p / 7.999).count();
        assert!((3..15).contains(&blended), "{blended}");
    }

    #[test]
    fn yarn_without_a_factor_changes_nothing() {
        let yarn = |factor| RopeScaling::Yarn {
            factor,
            beta_fast: 32.0,
            beta_slow: 1.0,
            attention_factor: magnitude(factor, 1.0),
            original: 64.0,
            truncate: true,
        };
        assert_eq!(yarn(1.0).frequencies(1e4, 16), RopeScaling::None.frequencies(1e4, 16));
        assert!((yarn(4.0).attention_factor() - (0.1 * 4f64.ln() + 1.0)).abs() < 1e-12);
        assert_eq!(yarn(4.0).context(), 256);
    }
}
