//! Few f32 rows by AVX2: each number of a weight is multiplied with those of eight rows by one
//! instruction.
#![allow(unsafe_code, reason = "loads, stores and fused products are intrinsics over raw pointers")]

use super::{F32_WIDE, Packed, Target};
use std::arch::x86_64::{
    __m256, __m256i, _MM_HINT_T1, _mm_loadu_ps, _mm_prefetch, _mm256_add_ps, _mm256_broadcast_ss,
    _mm256_castpd_ps, _mm256_castps128_ps256, _mm256_fmadd_ps, _mm256_insertf128_ps,
    _mm256_loadu_ps, _mm256_permute_ps, _mm256_permute2f128_ps, _mm256_permutevar8x32_ps,
    _mm256_set1_pd, _mm256_setzero_ps, _mm256_storeu_ps,
};
use std::mem::transmute;

/// How many of the weight's numbers lie between what is multiplied and what is fetched.
const FETCHED_AHEAD: usize = 20_480;

/// Numbers of a row of the weight that one cache line holds.
const A_LINE: usize = 16;

pub(super) fn present() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && !is_x86_feature_detected!("avx512f")
}

/// Multiplies the `rows` rows of `weight` with the packed rows.
pub(super) fn multiply(
    x: Packed<f32>,
    weight: &[f32],
    rows: usize,
    out: &mut [f32],
    target: Target,
) {
    assert!(super::multiplies_f32() && weight.len() == rows * x.features);
    assert!(x.holds(x.features) && x.form.width.is_multiple_of(F32_WIDE));
    assert!(target.holds(rows, x.rows, out.len()));

    // SAFETY: the processor has the instructions; the lengths have just been asserted.
    unsafe { all(x, weight, rows, out, target) }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn all(x: Packed<f32>, weight: &[f32], rows: usize, out: &mut [f32], target: Target) {
    let part = Part { x, weight: weight.as_ptr(), out: out.as_mut_ptr(), rows, target };
    let blocks = x.form.width / F32_WIDE;

    // Twelve sums, or eight: as many as hide the latency of a product and fit the registers.
    let tall = match blocks {
        1 => 12,
        _ => 6,
    };

    let mut row = 0;
    while row < rows {
        let tall = if row + tall <= rows { tall } else { 1 };

        let mut block = 0;
        while block < blocks {
            let left = blocks - block;
            let wide = left.min(2);
            // SAFETY: rows up to `row + tall` and blocks up to `block + wide` exist.
            unsafe {
                match (x.form.spread, tall, wide) {
                    (1, 12, _) => part.sums::<1, 12, 1>(row, block),
                    (1, 6, 2) => part.sums::<1, 6, 2>(row, block),
                    (1, 6, 1) => part.sums::<1, 6, 1>(row, block),
                    (1, _, 1) => part.sums::<1, 1, 1>(row, block),
                    (1, ..) => part.sums::<1, 1, 2>(row, block),
                    (2, 6, _) => part.sums::<2, 6, 2>(row, block),
                    (2, ..) => part.sums::<2, 1, 2>(row, block),
                    (4, 6, _) => part.sums::<4, 6, 2>(row, block),
                    (4, ..) => part.sums::<4, 1, 2>(row, block),
                    (_, 6, _) => part.sums::<8, 6, 2>(row, block),
                    _ => part.sums::<8, 1, 2>(row, block),
                }
            }
            block += wide;
        }
        row += tall;
    }
}

/// The sums of `SPREAD` neighboring lanes each, in the first lanes.
#[target_feature(enable = "avx2")]
fn gathered<const SPREAD: usize>(mut sums: __m256) -> __m256 {
    if SPREAD >= 2 {
        sums = _mm256_add_ps(sums, _mm256_permute_ps::<0b10_11_00_01>(sums));
    }
    if SPREAD >= 4 {
        sums = _mm256_add_ps(sums, _mm256_permute_ps::<0b01_00_11_10>(sums));
    }
    if SPREAD >= 8 {
        sums = _mm256_add_ps(sums, _mm256_permute2f128_ps::<1>(sums, sums));
    }
    if SPREAD == 1 {
        return sums;
    }

    let lanes: [i32; F32_WIDE] = std::array::from_fn(|lane| (lane * SPREAD % F32_WIDE) as i32);
    // SAFETY: eight integers are a vector.
    _mm256_permutevar8x32_ps(sums, unsafe { transmute::<[i32; F32_WIDE], __m256i>(lanes) })
}

/// A product in progress. `weight` is `[rows, x.features]`, `out` holds all of `target`.
struct Part<'a> {
    x: Packed<'a, f32>,
    weight: *const f32,
    out: *mut f32,
    rows: usize,
    target: Target,
}

impl Part<'_> {
    /// `TALL` rows of the weight with `BLOCKS` registers of rows, `SPREAD` features of each.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn sums<const SPREAD: usize, const TALL: usize, const BLOCKS: usize>(
        &self,
        row: usize,
        block: usize,
    ) {
        let features = self.x.features;
        let width = self.x.form.width;
        let mut sums = [[_mm256_setzero_ps(); BLOCKS]; TALL];

        // SAFETY: rows from `row` on lie in the weight, blocks from `block` on in the packed rows.
        let (weight, numbers) = unsafe {
            (self.weight.add(row * features), self.x.numbers.as_ptr().add(block * F32_WIDE))
        };

        // What comes next of the weight is brought into the second cache meanwhile, by the first
        // pass over it.
        let rows_ahead = (FETCHED_AHEAD / features).max(TALL);
        let fetches = block == 0 && row + rows_ahead + TALL <= self.rows;
        let ahead = rows_ahead * features;

        for line in (0..features).step_by(A_LINE) {
            if fetches {
                for tall in 0..TALL {
                    // SAFETY: the address lies in the weight.
                    unsafe {
                        _mm_prefetch::<_MM_HINT_T1>(
                            weight.add(ahead + tall * features + line).cast(),
                        )
                    };
                }
            }

            for feature in (line..(line + A_LINE).min(features)).step_by(SPREAD) {
                // SAFETY: `feature` is below the packed ones, and a block is eight numbers.
                let x: [__m256; BLOCKS] = std::array::from_fn(|b| unsafe {
                    _mm256_loadu_ps(numbers.add(feature / SPREAD * width + b * F32_WIDE))
                });

                for (tall, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: `SPREAD` features of a row of the weight, whose features are a
                    // multiple of that.
                    let spread = unsafe { spread::<SPREAD>(weight.add(tall * features + feature)) };
                    for (sum, x) in sums.iter_mut().zip(x) {
                        *sum = _mm256_fmadd_ps(spread, x, *sum);
                    }
                }
            }
        }

        for (tall, sums) in sums.into_iter().enumerate() {
            for (b, sum) in sums.into_iter().enumerate() {
                let first = (block + b) * (F32_WIDE / SPREAD);
                let count = self.x.rows.saturating_sub(first).min(F32_WIDE / SPREAD);
                // SAFETY: the place is within `target`.
                unsafe { self.store(row + tall, first, count, gathered::<SPREAD>(sum)) };
            }
        }
    }

    /// Writes the first `count` sums of weight row `row` from column `column` on.
    #[target_feature(enable = "avx2")]
    unsafe fn store(&self, row: usize, column: usize, count: usize, sum: __m256) {
        if count == 0 {
            return;
        }

        // SAFETY: only `count` columns are read and written, which `target` holds.
        unsafe {
            let to = self.out.add(self.target.first + row * self.target.stride + column);
            if count == F32_WIDE {
                let sum =
                    if self.target.add { _mm256_add_ps(sum, _mm256_loadu_ps(to)) } else { sum };
                _mm256_storeu_ps(to, sum);
                return;
            }

            let sums: [f32; F32_WIDE] = transmute::<__m256, [f32; F32_WIDE]>(sum);
            for (lane, sum) in sums.into_iter().enumerate().take(count) {
                let to = to.add(lane);
                to.write(if self.target.add { sum + to.read() } else { sum });
            }
        }
    }
}

/// `SPREAD` numbers, again and again.
#[target_feature(enable = "avx2")]
unsafe fn spread<const SPREAD: usize>(at: *const f32) -> __m256 {
    // SAFETY: the caller's.
    unsafe {
        match SPREAD {
            1 => _mm256_broadcast_ss(&*at),
            2 => _mm256_castpd_ps(_mm256_set1_pd(at.cast::<f64>().read_unaligned())),
            4 => {
                let four = _mm_loadu_ps(at);
                _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(four), four)
            }
            _ => _mm256_loadu_ps(at),
        }
    }
}
