//! Where values lie between two ends, and which of them get a tick.

/// A range of values with round ticks.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scale {
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) ticks: Vec<f64>,
}

impl Scale {
    /// A scale that holds all values and `low`, reaching up to a round number. Values that are not
    /// finite are left out.
    pub(super) fn from(low: f64, values: impl IntoIterator<Item = f64>) -> Self {
        let top = values.into_iter().filter(|v| v.is_finite()).fold(low, f64::max);
        let high = if top > low { top } else { low + 1.0 };
        Self::round(low, high)
    }

    /// A scale that holds zero and all values, with a little room.
    pub(super) fn around_zero(values: impl IntoIterator<Item = f64>) -> Self {
        let values = values.into_iter().filter(|v| v.is_finite());
        let (low, high) =
            values.fold((0.0_f64, 0.0_f64), |(low, high), v| (low.min(v), high.max(v)));
        let room = (high - low).max(1e-3) / 10.0;
        Self::exactly(low - room, high + room)
    }

    /// A scale from one end to the other, with the round ticks between them.
    pub(super) fn exactly(low: f64, high: f64) -> Self {
        let high = if high > low { high } else { low + 1.0 };
        let step = round_step(high - low);
        let first = (low / step).ceil() as i64;

        let ticks = (first..)
            .map(|k| k as f64 * step)
            .take_while(|tick| *tick <= high + step * 1e-9)
            .collect();
        Self { low, high, ticks }
    }

    fn round(low: f64, high: f64) -> Self {
        let step = round_step(high - low);
        let ends = ((low / step + 1e-9).floor(), (high / step - 1e-9).ceil());
        let ticks: Vec<f64> = (ends.0 as i64..=ends.1 as i64).map(|k| k as f64 * step).collect();
        Self { low: ends.0 * step, high: ends.1 * step, ticks }
    }

    /// Where a value lies, 0 at the lower end and 1 at the upper; values outside lie at the nearer
    /// end.
    pub(super) fn place(&self, value: f64) -> f64 {
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }
}

/// A step of 1, 2, 2.5 or 5 times a power of ten that divides the length by about four.
fn round_step(length: f64) -> f64 {
    let rough = (length / 4.0).max(f64::MIN_POSITIVE);
    let power = 10.0_f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 2.5, 5.0]
        .into_iter()
        .find(|factor| factor * power >= rough * 0.999)
        .unwrap_or(10.0);
    factor * power
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ticks_are_round() {
        assert_eq!(Scale::from(0.0, [0.1, 0.73]).ticks, [0.0, 0.2, 0.4, 0.6000000000000001, 0.8]);
        assert_eq!(Scale::exactly(1.0, 40.0).ticks, [10.0, 20.0, 30.0, 40.0]);
        assert_eq!(Scale::exactly(1.0, 40.0).place(40.0), 1.0);
        assert_eq!(Scale::from(0.0, []).high, 1.0);
    }

    proptest! {
        #[test]
        fn every_value_has_a_place(values in prop::collection::vec(-1e6..1e6f64, 0..9)) {
            for scale in [Scale::around_zero(values.clone()), Scale::from(0.0, values.clone())] {
                prop_assert!(scale.low < scale.high && (2..=14).contains(&scale.ticks.len()), "{scale:?}");
                for value in &values {
                    prop_assert!((0.0..=1.0).contains(&scale.place(*value)));
                    prop_assert!(*value <= scale.high * (1.0 + 1e-9) + 1e-9, "{scale:?}");
                }
            }
        }
    }
}
