//! Products of bf16 weights with few rows, on processors whose vector units multiply bf16 (AVX-512
//! BF16, without AMX).
//!
//! While tokens are sampled every product has a long weight and a handful of rows, and reads the
//! weight once. A library that is made for large matrices cuts, packs and dispatches for longer
//! than it multiplies: 16 rows through a model of 135M parameters took 89 ms on each of two cores
//! where the weights come from memory in 18. Here the rows are packed in pairs of features (which
//! is little), and the weight is read as it lies: each pair of its numbers is multiplied with the
//! pairs of sixteen rows by one instruction (`vdpbf16ps`), in f32. Of 16 rows or fewer, one
//! instruction takes several pairs: 8 rows, four pairs each, fill two registers as 32 rows do. So
//! no lane is idle, and for each number of the weight that is spread over a register there are two
//! products.

use crate::KernelError;
use crate::layout::{Layout, lying};
use posttrain_tensor::{Bf16, TensorError, Values, ValuesMut, values, values_mut};
use std::ops::Range;
use std::sync::OnceLock;
use tch::{Device, Kind, Tensor};

/// Rows that stand side by side in a register.
const WIDE: usize = 16;

/// More rows than this are left to libtorch, whose blocking then pays.
const MOST_ROWS: usize = 128;

/// Some rows of a matrix `[rows, in]`, packed to be multiplied with weights.
#[derive(Debug)]
pub struct PackedColumns {
    /// `[in / 2 / spread][rows, padded to whole registers][spread]`: a pair of features of a row in
    /// each.
    pairs: Vec<u32>,
    features: usize,
    rows: usize,
    /// Pairs of one row that stand side by side.
    spread: usize,
}

/// How a number of rows is packed.
#[derive(Clone, Copy)]
struct Form {
    spread: usize,
    /// Numbers that stand side by side.
    width: usize,
}

impl Form {
    /// As few pairs of each row as fill two registers.
    fn of(rows: usize, features: usize) -> Self {
        let fits =
            |spread: &usize| rows * spread <= 2 * WIDE && (features / 2).is_multiple_of(*spread);
        match [16, 8, 4, 2].into_iter().find(fits) {
            Some(spread) => Self { spread, width: 2 * WIDE },
            None => Self { spread: 1, width: rows.next_multiple_of(WIDE) },
        }
    }

    /// Where a pair of a row stands.
    fn place(self, pair: usize, row: usize) -> usize {
        pair / self.spread * self.width + row * self.spread + pair % self.spread
    }
}

impl PackedColumns {
    /// Whether rows of this kind, on this device and processor, are packed at all.
    #[must_use]
    pub fn serves(kind: Kind, device: Device) -> bool {
        kind == Kind::BFloat16 && device == Device::Cpu && multiplies_bf16()
    }

    /// The rows `rows` of `x: [N, in]`; `None` where libtorch multiplies them better: in another
    /// kind than bf16, on another device or processor, with more than 128 rows, or with an odd
    /// number of features.
    ///
    /// # Errors
    /// [`KernelError`] if `x` is not a matrix, or has fewer rows.
    pub fn of(x: &Tensor, rows: Range<usize>) -> Result<Option<Self>, KernelError> {
        let fits = Self::serves(x.kind(), x.device()) && x.dim() == 2 && !x.requires_grad();
        if !fits || rows.is_empty() || rows.len() > MOST_ROWS {
            return Ok(None);
        }

        let (all, features) = x.size2()?;
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

        let (Values::Bf16(x), 0) = (values("x", &lying)?, features % 2) else { return Ok(None) };
        let all = all as usize;
        let features = features as usize;
        let count = rows.len();
        let form = Form::of(count, features);
        let mut pairs = vec![0; features / 2 / form.spread * form.width];

        match layout {
            Layout::Columns => from_columns(x, all, rows, form, &mut pairs),
            Layout::Rows => from_rows(
                &x[rows.start * features..rows.end * features],
                features,
                form,
                &mut pairs,
            ),
        }

        Ok(Some(Self { pairs, features, rows: count, spread: form.spread }))
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
        let mut product = Tensor::f_empty([out, self.rows as i64], (Kind::BFloat16, Device::Cpu))?;
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

        match (values("weight", weight)?, values_mut("into", out)?) {
            (Values::Bf16(weight), ValuesMut::Bf16(out)) => {
                instructions::multiply(self, weight, rows as usize, out, target);
                Ok(())
            }
            _ => Err(TensorError::Kind {
                argument: "weight",
                expected: "BFloat16",
                got: weight.kind(),
            }
            .into()),
        }
    }
}

fn pair(first: Bf16, second: Bf16) -> u32 {
    u32::from(first.0) | u32::from(second.0) << 16
}

/// Packs some of `all` rows that lie feature by feature.
fn from_columns(x: &[Bf16], all: usize, rows: Range<usize>, form: Form, pairs: &mut [u32]) {
    for (number, both) in x.chunks_exact(2 * all).enumerate() {
        let (first, second) = both.split_at(all);
        let both = first[rows.clone()].iter().zip(&second[rows.clone()]);
        let to = pairs[form.place(number, 0)..].iter_mut().step_by(form.spread);
        to.zip(both).for_each(|(to, (&first, &second))| *to = pair(first, second));
    }
}

/// Packs rows that lie row by row.
fn from_rows(x: &[Bf16], features: usize, form: Form, pairs: &mut [u32]) {
    for (at, row) in x.chunks_exact(features).enumerate() {
        for (number, both) in row.chunks_exact(2).enumerate() {
            pairs[form.place(number, at)] = pair(both[0], both[1]);
        }
    }
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
}

/// Whether this processor has the instruction, and nothing better.
fn multiplies_bf16() -> bool {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    *KNOWN.get_or_init(instructions::present)
}

#[cfg(target_arch = "x86_64")]
mod instructions {
    #![allow(
        unsafe_code,
        reason = "loads, stores and the product of bf16 pairs are intrinsics over raw pointers"
    )]

    use super::{Bf16, PackedColumns, Target, WIDE};
    use std::arch::x86_64::{
        __cpuid_count, __m256bh, __m256i, __m512, __m512bh, __m512i, _MM_HINT_T1, _mm_loadu_si128,
        _mm_prefetch, _mm256_loadu_si256, _mm256_mask_storeu_epi16, _mm256_maskz_loadu_epi16,
        _mm512_add_ps, _mm512_broadcast_i32x4, _mm512_broadcast_i64x4, _mm512_castsi512_ps,
        _mm512_cvtepu16_epi32, _mm512_cvtneps_pbh, _mm512_dpbf16_ps, _mm512_loadu_si512,
        _mm512_permute_ps, _mm512_permutexvar_ps, _mm512_set1_epi32, _mm512_set1_epi64,
        _mm512_setzero_ps, _mm512_shuffle_f32x4, _mm512_slli_epi32,
    };
    use std::mem::transmute;

    /// How many of the weight's numbers lie between what is multiplied and what is fetched: 80 kB.
    /// Fetched 7 kB ahead into the first cache, a long weight came at 11 GB/s, and so it does at
    /// 21.
    const FETCHED_AHEAD: usize = 40_960;

    /// Pairs of a row of the weight that one cache line holds.
    const PAIRS_A_LINE: usize = 16;

    pub fn present() -> bool {
        let vectors = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bf16");
        // Leaf 7, EDX bit 22: AMX-BF16, which libtorch uses and which is several times as fast.
        vectors && __cpuid_count(7, 0).edx & (1 << 22) == 0
    }

    /// Multiplies the `rows` rows of `weight` with the packed rows.
    pub fn multiply(
        x: &PackedColumns,
        weight: &[Bf16],
        rows: usize,
        out: &mut [Bf16],
        target: Target,
    ) {
        assert!(
            super::multiplies_bf16()
                && weight.len() == rows * x.features
                && x.features.is_multiple_of(2)
        );
        let width = super::Form::of(x.rows, x.features).width;
        assert_eq!(x.pairs.len(), x.features / 2 / x.spread * width);
        assert!(rows == 0 || target.first + (rows - 1) * target.stride + x.rows <= out.len());

        // SAFETY: the processor has the instructions; the lengths that `Part` asks for have just
        // been asserted.
        unsafe { all(x, weight, rows, out, target) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn all(
        x: &PackedColumns,
        weight: &[Bf16],
        rows: usize,
        out: &mut [Bf16],
        target: Target,
    ) {
        let width = super::Form::of(x.rows, x.features).width;
        let blocks = width / WIDE;
        let part = Part { x, width, weight: weight.as_ptr(), out: out.as_mut_ptr(), rows, target };

        // As many sums as fill the registers. A stretch of the weight stays in the cache for all
        // blocks of rows.
        let tall = match blocks {
            1 => 16,
            2 => 12,
            3 => 8,
            _ => 6,
        };

        let mut row = 0;
        while row < rows {
            let tall = if row + tall <= rows { tall } else { 1 };

            let mut block = 0;
            while block < blocks {
                let wide = (blocks - block).min(4);
                // SAFETY: rows up to `row + tall` and blocks up to `block + wide` exist.
                unsafe {
                    match (x.spread, tall, wide) {
                        (1, 16, _) => part.sums::<1, 16, 1>(row, block),
                        (1, 12, _) => part.sums::<1, 12, 2>(row, block),
                        (1, 8, _) => part.sums::<1, 8, 3>(row, block),
                        (1, 6, 1) => part.sums::<1, 6, 1>(row, block),
                        (1, 6, 2) => part.sums::<1, 6, 2>(row, block),
                        (1, 6, 3) => part.sums::<1, 6, 3>(row, block),
                        (1, 6, _) => part.sums::<1, 6, 4>(row, block),
                        (1, _, 1) => part.sums::<1, 1, 1>(row, block),
                        (1, _, 2) => part.sums::<1, 1, 2>(row, block),
                        (1, _, 3) => part.sums::<1, 1, 3>(row, block),
                        (1, ..) => part.sums::<1, 1, 4>(row, block),
                        (2, 12, _) => part.sums::<2, 12, 2>(row, block),
                        (2, ..) => part.sums::<2, 1, 2>(row, block),
                        (4, 12, _) => part.sums::<4, 12, 2>(row, block),
                        (4, ..) => part.sums::<4, 1, 2>(row, block),
                        (8, 12, _) => part.sums::<8, 12, 2>(row, block),
                        (8, ..) => part.sums::<8, 1, 2>(row, block),
                        (_, 12, _) => part.sums::<16, 12, 2>(row, block),
                        _ => part.sums::<16, 1, 2>(row, block),
                    }
                }
                block += wide;
            }
            row += tall;
        }
    }

    /// The sums of `SPREAD` neighboring lanes each, in the first lanes.
    #[target_feature(enable = "avx512f")]
    fn gathered<const SPREAD: usize>(mut sums: __m512) -> __m512 {
        if SPREAD >= 2 {
            sums = _mm512_add_ps(sums, _mm512_permute_ps::<0b10_11_00_01>(sums));
        }
        if SPREAD >= 4 {
            sums = _mm512_add_ps(sums, _mm512_permute_ps::<0b01_00_11_10>(sums));
        }
        if SPREAD >= 8 {
            sums = _mm512_add_ps(sums, _mm512_shuffle_f32x4::<0b10_11_00_01>(sums, sums));
        }
        if SPREAD >= 16 {
            sums = _mm512_add_ps(sums, _mm512_shuffle_f32x4::<0b01_00_11_10>(sums, sums));
        }

        if SPREAD == 1 {
            return sums;
        }

        let lanes: [i32; WIDE] = std::array::from_fn(|lane| (lane * SPREAD % WIDE) as i32);
        // SAFETY: sixteen integers are a vector.
        _mm512_permutexvar_ps(unsafe { transmute::<[i32; WIDE], __m512i>(lanes) }, sums)
    }

    /// A product in progress. `weight` is `[rows, x.features]`, `out` holds all of `target`.
    struct Part<'a> {
        x: &'a PackedColumns,
        /// Packed numbers that stand side by side.
        width: usize,
        weight: *const Bf16,
        out: *mut Bf16,
        rows: usize,
        target: Target,
    }

    impl Part<'_> {
        /// `TALL` rows of the weight with `BLOCKS` registers of rows, `SPREAD` pairs of each.
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
        unsafe fn sums<const SPREAD: usize, const TALL: usize, const BLOCKS: usize>(
            &self,
            row: usize,
            block: usize,
        ) {
            let features = self.x.features;
            let mut sums = [[_mm512_setzero_ps(); BLOCKS]; TALL];

            // SAFETY: rows from `row` on lie in the weight, blocks from `block` on in the packed
            // rows.
            let (weight, pairs) = unsafe {
                (self.weight.add(row * features), self.x.pairs.as_ptr().add(block * WIDE))
            };

            // What comes next of the weight is brought into the second cache meanwhile.
            let rows_ahead = (FETCHED_AHEAD / features).max(TALL);
            let ahead =
                if row + rows_ahead + TALL <= self.rows { rows_ahead * features } else { 0 };

            for line in (0..features / 2).step_by(PAIRS_A_LINE) {
                for tall in 0..TALL {
                    // SAFETY: the address lies in the weight.
                    unsafe {
                        _mm_prefetch::<_MM_HINT_T1>(
                            weight.add(ahead + tall * features + 2 * line).cast(),
                        )
                    };
                }

                for pair in (line..(line + PAIRS_A_LINE).min(features / 2)).step_by(SPREAD) {
                    // SAFETY: `pair` is below the packed pairs, and a block is sixteen numbers; any
                    // bits are a vector.
                    let x: [__m512bh; BLOCKS] = std::array::from_fn(|b| unsafe {
                        transmute(_mm512_loadu_si512(
                            pairs.add(pair / SPREAD * self.width + b * WIDE).cast(),
                        ))
                    });

                    for (tall, sums) in sums.iter_mut().enumerate() {
                        // SAFETY: `SPREAD` pairs of a row of the weight, whose pairs are a multiple
                        // of that.
                        let spread: __m512bh = unsafe {
                            let at = weight.add(tall * features + 2 * pair);
                            transmute(match SPREAD {
                                1 => _mm512_set1_epi32(at.cast::<i32>().read_unaligned()),
                                2 => _mm512_set1_epi64(at.cast::<i64>().read_unaligned()),
                                4 => _mm512_broadcast_i32x4(_mm_loadu_si128(at.cast())),
                                8 => _mm512_broadcast_i64x4(_mm256_loadu_si256(at.cast())),
                                _ => _mm512_loadu_si512(at.cast()),
                            })
                        };
                        for (sum, x) in sums.iter_mut().zip(x) {
                            *sum = _mm512_dpbf16_ps(*sum, spread, x);
                        }
                    }
                }
            }

            for (tall, sums) in sums.into_iter().enumerate() {
                for (b, sum) in sums.into_iter().enumerate() {
                    let first = (block + b) * (WIDE / SPREAD);
                    let sum = gathered::<SPREAD>(sum);
                    let count = self.x.rows.saturating_sub(first).min(WIDE / SPREAD);
                    // SAFETY: the place is within `target`.
                    unsafe { self.store(row + tall, first, count, sum) };
                }
            }
        }

        /// Writes the first `count` sums of weight row `row` from column `column` on.
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
        unsafe fn store(&self, row: usize, column: usize, count: usize, sum: __m512) {
            if count == 0 {
                return;
            }

            let mask = (u16::MAX >> (WIDE - count)) as _;
            // SAFETY: only the columns of the mask are read and written, which `target` holds.
            unsafe {
                let to = self
                    .out
                    .add(self.target.first + row * self.target.stride + column)
                    .cast::<i16>();
                let mut sum = sum;
                if self.target.add {
                    let there = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, to));
                    sum = _mm512_add_ps(sum, _mm512_castsi512_ps(_mm512_slli_epi32::<16>(there)));
                }
                _mm256_mask_storeu_epi16(
                    to,
                    mask,
                    transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(sum)),
                );
            }
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod instructions {
    use super::{Bf16, PackedColumns, Target};

    pub fn present() -> bool {
        false
    }

    pub fn multiply(_: &PackedColumns, _: &[Bf16], _: usize, _: &mut [Bf16], _: Target) {
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

    /// Within bf16's rounding of the result in f64, and of what was added to.
    fn assert_close(got: &Tensor, exact: &Tensor) {
        let off = (got.to_kind(Kind::Double) - exact).abs() - (exact.abs() * 0.004 + 0.004);
        assert!(off.max().double_value(&[]) <= 0.0, "{got} for {exact}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn it_is_the_product(
            rows in prop_oneof![1usize..20, 1usize..130],
            before in 0i64..3,
            after in 0i64..3,
            pairs in prop_oneof![1i64..40, Just(32), Just(48), Just(64)],
            out in 1i64..40,
            seed in 0u32..1000,
        ) {
            let (features, seed) = (2 * pairs, f64::from(seed));
            let x = noise([before + rows as i64 + after, features], seed);
            let x = if seed as i64 % 2 == 0 { x } else { by_columns(&x) };
            let weight = noise([out, features], seed + 0.3);
            let own = before as usize..before as usize + rows;
            let Some(packed) = PackedColumns::of(&x, own).unwrap() else {
                prop_assert!(rows > MOST_ROWS || !multiplies_bf16());
                return Ok(());
            };
            let exact = x.narrow(0, before, rows as i64).to_kind(Kind::Double).mm(&weight.to_kind(Kind::Double).tr());
            let exact = exact.tr();
            let product = packed.product(&weight).unwrap();
            prop_assert_eq!(product.size(), [out, rows as i64]);
            assert_close(&product, &exact);
            // Added in the middle of something larger; nothing else changes.
            let there = noise([out + 3, before + rows as i64 + after], seed + 0.7);
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
        let x = by_columns(&noise([5, 4], 0.0));
        let none = |x: &Tensor, rows| PackedColumns::of(x, rows).unwrap().is_none();
        assert!(none(&x.to_kind(Kind::Float), 0..5) && none(&x, 2..2));
        assert!(
            none(&by_columns(&noise([5, 3], 0.0)), 0..5)
                && none(&by_columns(&noise([200, 4], 0.0)), 0..129)
        );
        if let Some(packed) = PackedColumns::of(&x, 0..5).unwrap() {
            let weight = noise([3, 4], 1.0);
            let message = |result: Result<(), KernelError>| result.unwrap_err().to_string();
            assert!(
                message(packed.product(&noise([3, 6], 1.0)).map(drop))
                    .contains("`weight` has shape [3, 6]")
            );
            assert!(
                message(packed.product(&weight.to_kind(Kind::Float)).map(drop))
                    .contains("`weight`")
            );
            assert!(
                message(packed.product(&noise([4, 3], 1.0).tr()).map(drop)).contains("strides")
            );
            let mut into = noise([4, 5], 2.0);
            assert!(
                message(packed.add_product(&weight, &mut into, 2, 0))
                    .contains("`into` has shape [4, 5]")
            );
            assert!(
                message(packed.add_product(&weight, &mut into, 0, 1))
                    .contains("`into` has shape [4, 5]")
            );
            let mut same = into.shallow_clone();
            assert!(
                message(packed.add_product(&weight, &mut same, 0, 0)).contains("shares its memory")
            );
            assert!(PackedColumns::of(&x, 3..6).is_err());
        }
    }
}
