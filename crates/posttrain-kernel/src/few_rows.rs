//! Products of weights with few rows, on processors whose vector units do it better than libtorch:
//! bf16 by AVX-512 BF16 (without AMX), f32 by AVX2.
//!
//! While tokens are sampled every product has a long weight and a handful of rows, and reads the
//! weight once. A library that is made for large matrices cuts, packs and dispatches for longer
//! than it multiplies: 16 bf16 rows through a model of 135M parameters took 89 ms on each of two
//! cores where the weights come from memory in 18, and 2 to 12 f32 rows came to 3 to 17 GFLOP/s
//! where 32 come to 48. Here the rows are packed (which is little), and the weight is read as it
//! lies: each of its numbers, or pair of them, is multiplied with those of a register of rows by one
//! instruction, in f32. Of few rows, one instruction takes several numbers: 8 bf16 rows, four pairs
//! each, fill two registers as 32 rows do. So no lane is idle, and for each number of the weight
//! that is spread over a register there are two products.

use crate::KernelError;
use crate::layout::{Layout, lying};
use posttrain_tensor::{Bf16, TensorError, Values, ValuesMut, values, values_mut};
use std::ops::{Range, RangeInclusive};
use std::sync::OnceLock;
use tch::{Device, Kind, Tensor};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

/// How many rows of a kind are packed. Others are left to libtorch: its blocking pays for many, and
/// it has all the threads that it is set to, where here the calling thread does it all.
fn packed_rows(kind: Kind) -> RangeInclusive<usize> {
    if kind == Kind::BFloat16 {
        return 1..=128;
    }
    // One f32 row libtorch multiplies as fast. A thread of its own took 6 times as long for 8 rows,
    // 2.5 times for 12, 1.2 for 32 and 64.
    match tch::get_num_threads() {
        ..=1 => 2..=64,
        2 => 2..=12,
        3..=6 => 2..=8,
        _ => 0..=0,
    }
}

/// Some rows of a matrix `[rows, in]`, packed to be multiplied with weights.
#[derive(Debug)]
pub struct PackedColumns {
    numbers: Numbers,
    features: usize,
    rows: usize,
    form: Form,
}

/// `[units / spread][rows, padded to whole registers][spread]` of a row's units.
#[derive(Debug)]
enum Numbers {
    /// A unit is a pair of bf16 features.
    Bf16(Vec<u32>),
    /// A unit is a feature.
    F32(Vec<f32>),
}

/// How a number of rows is packed.
#[derive(Debug, Clone, Copy)]
struct Form {
    /// Units of one row that stand side by side.
    spread: usize,
    /// Units that stand side by side.
    width: usize,
}

impl Form {
    /// As few units of each row as fill two registers of `wide` units.
    fn of(rows: usize, units: usize, wide: usize) -> Self {
        let fits = |spread: &usize| {
            *spread <= wide && rows * spread <= 2 * wide && units.is_multiple_of(*spread)
        };
        match [16, 8, 4, 2].into_iter().find(fits) {
            Some(spread) => Self { spread, width: 2 * wide },
            None => Self { spread: 1, width: rows.next_multiple_of(wide) },
        }
    }

    /// Where a unit of a row stands.
    fn place(self, unit: usize, row: usize) -> usize {
        unit / self.spread * self.width + row * self.spread + unit % self.spread
    }

    /// Packed rows: `read(unit)` gives that unit of each row, in the rows' order.
    fn pack<T: Copy + Default, I: Iterator<Item = T>>(
        self,
        units: usize,
        read: impl Fn(usize) -> I,
    ) -> Vec<T> {
        let mut packed = vec![T::default(); units / self.spread * self.width];
        for unit in 0..units {
            let places = packed[self.place(unit, 0)..].iter_mut().step_by(self.spread);
            places.zip(read(unit)).for_each(|(to, value)| *to = value);
        }
        packed
    }
}

/// Packed rows, as they are multiplied.
#[derive(Clone, Copy)]
struct Packed<'a, T> {
    numbers: &'a [T],
    features: usize,
    rows: usize,
    form: Form,
}

impl<T> Packed<'_, T> {
    /// Whether all rows' `units` are there, in whole groups.
    fn holds(&self, units: usize) -> bool {
        let Form { spread, width } = self.form;
        units.is_multiple_of(spread)
            && self.numbers.len() == units / spread * width
            && self.rows * spread <= width
    }
}

impl PackedColumns {
    /// Whether rows of this kind, on this device and processor, are packed at all.
    #[must_use]
    pub fn serves(kind: Kind, device: Device) -> bool {
        device == Device::Cpu
            && match kind {
                Kind::BFloat16 => multiplies_bf16(),
                Kind::Float => multiplies_f32(),
                _ => false,
            }
    }

    /// The rows `rows` of `x: [N, in]`; `None` where libtorch multiplies them better: in another
    /// kind, on another device or processor, more than 128 rows in bf16, one row in f32 or more than
    /// 64 (fewer where libtorch has several threads), an odd number of features in bf16.
    ///
    /// # Errors
    /// [`KernelError`] if `x` is not a matrix, or has fewer rows.
    pub fn of(x: &Tensor, rows: Range<usize>) -> Result<Option<Self>, KernelError> {
        let fits = Self::serves(x.kind(), x.device()) && x.dim() == 2 && !x.requires_grad();
        if !fits || rows.is_empty() || !packed_rows(x.kind()).contains(&rows.len()) {
            return Ok(None);
        }

        let (all, features) = x.size2()?;
        if features == 0 {
            return Ok(None);
        }
        if rows.end > all as usize {
            return Err(TensorError::Shape {
                argument: "x",
                expected: vec![rows.end as i64, features],
                got: x.size(),
            }
            .into());
        }

        // Rows cut out of a matrix that lies by columns lie in neither way.
        let (layout, lying) = match lying("x", x) {
            Err(KernelError::Tensor(TensorError::Strided { .. })) => {
                lying("x", &x.f_contiguous()?)?
            }
            lying => lying?,
        };

        let all = all as usize;
        let features = features as usize;
        let count = rows.len();
        let first = rows.start;
        let (numbers, form) = match (values("x", &lying)?, layout) {
            (Values::Bf16(_), _) if !features.is_multiple_of(2) => return Ok(None),
            (Values::Bf16(x), Layout::Rows) => {
                let form = Form::of(count, features / 2, BF16_WIDE);
                let x = &x[first * features..];
                let read = |unit: usize| {
                    let own = x.chunks_exact(features).take(count);
                    own.map(move |row| pair(row[2 * unit], row[2 * unit + 1]))
                };
                (Numbers::Bf16(form.pack(features / 2, read)), form)
            }
            (Values::Bf16(x), Layout::Columns) => {
                let form = Form::of(count, features / 2, BF16_WIDE);
                let column = |feature: usize| &x[feature * all + first..][..count];
                let read = |unit: usize| {
                    let both = column(2 * unit).iter().zip(column(2 * unit + 1));
                    both.map(|(first, second)| pair(*first, *second))
                };
                (Numbers::Bf16(form.pack(features / 2, read)), form)
            }
            (Values::F32(x), Layout::Rows) => {
                let form = Form::of(count, features, F32_WIDE);
                let x = &x[first * features..];
                let read =
                    |unit: usize| x.chunks_exact(features).take(count).map(move |row| row[unit]);
                (Numbers::F32(form.pack(features, read)), form)
            }
            (Values::F32(x), Layout::Columns) => {
                let form = Form::of(count, features, F32_WIDE);
                let read = |unit: usize| x[unit * all + first..][..count].iter().copied();
                (Numbers::F32(form.pack(features, read)), form)
            }
        };

        Ok(Some(Self { numbers, features, rows: count, form }))
    }

    /// `x·Wᵀ` for `weight: [out, in]`, contiguous: `[out, rows]`, a row for each feature.
    ///
    /// # Errors
    /// [`KernelError`] if the weight is not of the packed features' number, of another kind, or
    /// strided.
    ///
    /// ```
    /// use posttrain_kernel::PackedColumns;
    /// use tch::{Kind, Tensor};
    ///
    /// let x = Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0]).view([2, 2]).to_kind(Kind::BFloat16); // two features of two rows
    /// let weight = Tensor::from_slice(&[1f32, 10.0]).view([1, 2]).to_kind(Kind::BFloat16);
    /// // `None` on a processor without the instruction.
    /// if let Some(packed) = PackedColumns::of(&x.tr(), 0..2)? {
    ///     let y = packed.product(&weight)?;
    ///     assert_eq!([y.double_value(&[0, 0]), y.double_value(&[0, 1])], [31.0, 42.0]);
    /// }
    /// # Ok::<(), posttrain_kernel::KernelError>(())
    /// ```
    pub fn product(&self, weight: &Tensor) -> Result<Tensor, KernelError> {
        let (out, _) = weight.size2()?;
        let kind = match self.numbers {
            Numbers::Bf16(_) => Kind::BFloat16,
            Numbers::F32(_) => Kind::Float,
        };
        let mut product = Tensor::f_empty([out, self.rows as i64], (kind, Device::Cpu))?;
        self.multiply(weight, &mut product, Target { first: 0, ..Target::whole(self.rows) })?;
        Ok(product)
    }

    /// Adds `x·Wᵀ` to features and rows of `into: [features, N]`: those from `feature` and from
    /// `row` on. Added in f32, then rounded.
    ///
    /// # Errors
    /// As for [`PackedColumns::product`], and if `into` is too small, is strided, or shares its
    /// memory with another tensor.
    pub fn add_product(
        &self,
        weight: &Tensor,
        into: &mut Tensor,
        feature: usize,
        row: usize,
    ) -> Result<(), KernelError> {
        let (features, rows) = into.size2()?;
        let out = weight.size2()?.0 as usize;

        if feature + out > features as usize || row + self.rows > rows as usize {
            let expected = vec![(feature + out) as i64, (row + self.rows) as i64];
            return Err(TensorError::Shape { argument: "into", expected, got: into.size() }.into());
        }

        let target =
            Target { stride: rows as usize, first: feature * rows as usize + row, add: true };
        self.multiply(weight, into, target)
    }

    fn multiply(
        &self,
        weight: &Tensor,
        out: &mut Tensor,
        target: Target,
    ) -> Result<(), KernelError> {
        let (rows, features) = weight.size2()?;
        if features as usize != self.features {
            return Err(TensorError::Shape {
                argument: "weight",
                expected: vec![-1, self.features as i64],
                got: weight.size(),
            }
            .into());
        }

        let &Self { features, rows: packed, form, .. } = self;
        let count = rows as usize;
        match (&self.numbers, values("weight", weight)?, values_mut("into", out)?) {
            (Numbers::Bf16(numbers), Values::Bf16(weight), ValuesMut::Bf16(out)) => {
                let x = Packed { numbers, features, rows: packed, form };
                avx512::multiply(x, weight, count, out, target);
            }
            (Numbers::F32(numbers), Values::F32(weight), ValuesMut::F32(out)) => {
                let x = Packed { numbers, features, rows: packed, form };
                avx2::multiply(x, weight, count, out, target);
            }
            _ => {
                return Err(TensorError::Kind {
                    argument: "weight",
                    expected: "that of the packed rows and of what it is added to",
                    got: weight.kind(),
                }
                .into());
            }
        }
        Ok(())
    }
}

fn pair(first: Bf16, second: Bf16) -> u32 {
    u32::from(first.0) | u32::from(second.0) << 16
}

/// Where a product goes: weight row `m` of row `n` to `first + m·stride + n`.
#[derive(Clone, Copy)]
struct Target {
    first: usize,
    stride: usize,
    /// To what is there, not in its place.
    add: bool,
}

impl Target {
    fn whole(rows: usize) -> Self {
        Self { first: 0, stride: rows, add: false }
    }

    /// Whether `len` numbers hold `out` rows of `rows` numbers.
    fn holds(self, out: usize, rows: usize, len: usize) -> bool {
        out == 0 || self.first + (out - 1) * self.stride + rows <= len
    }
}

/// Whether this processor multiplies bf16 in its vector units, and has nothing better.
fn multiplies_bf16() -> bool {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    *KNOWN.get_or_init(avx512::present)
}

/// Whether this processor's widest vector units are AVX2's: with wider ones libtorch was not
/// measured to be slower.
fn multiplies_f32() -> bool {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    *KNOWN.get_or_init(avx2::present)
}

/// Pairs of bf16 in a register.
const BF16_WIDE: usize = 16;

/// f32 numbers in a register.
const F32_WIDE: usize = 8;

#[cfg(not(target_arch = "x86_64"))]
mod avx512 {
    use super::{Bf16, Packed, Target};

    pub(super) fn present() -> bool {
        false
    }

    pub(super) fn multiply(_: Packed<u32>, _: &[Bf16], _: usize, _: &mut [Bf16], _: Target) {
        unreachable!("nothing is packed without the instruction")
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod avx2 {
    use super::{Packed, Target};

    pub(super) fn present() -> bool {
        false
    }

    pub(super) fn multiply(_: Packed<f32>, _: &[f32], _: usize, _: &mut [f32], _: Target) {
        unreachable!("nothing is packed without the instruction")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Values of both signs between -1 and 1.
    fn noise(sizes: [i64; 2], seed: f64) -> Tensor {
        let places = Tensor::arange(sizes[0] * sizes[1], (Kind::Double, Device::Cpu));
        ((places * 12.9898 + seed).sin() * 43_758.547).frac().to_kind(Kind::BFloat16).view(sizes)
    }

    fn by_columns(x: &Tensor) -> Tensor {
        x.tr().contiguous().tr()
    }

    /// Within the rounding of the result in f64, and of what was added to.
    fn assert_close(got: &Tensor, exact: &Tensor) {
        let rounding = if got.kind() == Kind::BFloat16 { 0.004 } else { 2e-6 };
        let off = (got.to_kind(Kind::Double) - exact).abs() - (exact.abs() + 1.0) * rounding;
        assert!(off.max().double_value(&[]) <= 0.0, "{got} for {exact}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn it_is_the_product(
            rows in prop_oneof![1usize..20, 1usize..130],
            before in 0i64..3,
            after in 0i64..3,
            features in prop_oneof![1i64..80, Just(64), Just(96), Just(128)],
            out in 1i64..40,
            seed in 0u32..1000,
            f32 in proptest::bool::ANY,
        ) {
            // As on a worker, which has a thread of libtorch's.
            crate::set_threads(1);
            let kind = if f32 { Kind::Float } else { Kind::BFloat16 };
            let seed = f64::from(seed);
            let x = noise([before + rows as i64 + after, features], seed).to_kind(kind);
            let x = if seed as i64 % 2 == 0 { x } else { by_columns(&x) };
            let weight = noise([out, features], seed + 0.3).to_kind(kind);
            let own = before as usize..before as usize + rows;
            let Some(packed) = PackedColumns::of(&x, own).unwrap() else {
                let odd = kind == Kind::BFloat16 && features % 2 == 1;
                prop_assert!(!packed_rows(kind).contains(&rows) || odd || !PackedColumns::serves(kind, Device::Cpu));
                return Ok(());
            };

            let exact = x.narrow(0, before, rows as i64).to_kind(Kind::Double).mm(&weight.to_kind(Kind::Double).tr());
            let exact = exact.tr();
            let product = packed.product(&weight).unwrap();
            prop_assert_eq!(product.size(), [out, rows as i64]);
            prop_assert_eq!(product.kind(), kind);
            assert_close(&product, &exact);

            // Added in the middle of something larger; nothing else changes.
            let there = noise([out + 3, before + rows as i64 + after], seed + 0.7).to_kind(kind);
            let mut into = there.copy();
            packed.add_product(&weight, &mut into, 2, before as usize).unwrap();
            let part = |t: &Tensor| t.narrow(1, before, rows as i64).narrow(0, 2, out);
            assert_close(&part(&into), &(part(&there).to_kind(Kind::Double) + exact));
            part(&into).copy_(&part(&there));
            prop_assert_eq!(into, there);
        }
    }

    #[test]
    fn what_is_not_for_it_is_left_to_libtorch() {
        let none = |x: &Tensor, rows| PackedColumns::of(x, rows).unwrap().is_none();
        let x = by_columns(&noise([200, 3], 0.0));
        assert!(none(&x.to_kind(Kind::Double), 0..5) && none(&x, 2..2));
        assert!(none(&x, 0..5) && none(&x, 0..129));
        assert!(none(&x.to_kind(Kind::Float), 0..1) && none(&x.to_kind(Kind::Float), 0..65));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (kind, other) in [(Kind::BFloat16, Kind::Float), (Kind::Float, Kind::BFloat16)] {
            let x = by_columns(&noise([5, 4], 0.0)).to_kind(kind);
            let Some(packed) = PackedColumns::of(&x, 0..5).unwrap() else { continue };
            let weight = noise([3, 4], 1.0).to_kind(kind);
            let mut into = noise([4, 5], 2.0).to_kind(kind);

            let message = |result: Result<(), KernelError>| result.unwrap_err().to_string();
            let product = |weight: &Tensor| message(packed.product(weight).map(drop));
            assert!(
                product(&noise([3, 6], 1.0).to_kind(kind)).contains("`weight` has shape [3, 6]")
            );
            assert!(product(&weight.to_kind(other)).contains("`weight`"));
            assert!(product(&noise([4, 3], 1.0).to_kind(kind).tr()).contains("strides"));

            for (feature, row) in [(2, 0), (0, 1)] {
                let error = message(packed.add_product(&weight, &mut into, feature, row));
                assert!(error.contains("`into` has shape [4, 5]"), "{error}");
            }
            let mut same = into.shallow_clone();
            let error = message(packed.add_product(&weight, &mut same, 0, 0));
            assert!(error.contains("shares its memory"), "{error}");
            assert!(PackedColumns::of(&x, 3..6).is_err());
        }
    }
}
