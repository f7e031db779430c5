//! Few bf16 rows by AVX-512: each pair of a weight's numbers is multiplied with the pairs of sixteen
//! rows by one instruction.
#![allow(
    unsafe_code,
    reason = "loads, stores and the product of bf16 pairs are intrinsics over raw pointers"
)]

use super::{BF16_WIDE, Packed, Target};
use posttrain_tensor::Bf16;
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

pub(super) fn present() -> bool {
    let vectors = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512bf16");
    // Leaf 7, EDX bit 22: AMX-BF16, which libtorch uses and which is several times as fast.
    vectors && __cpuid_count(7, 0).edx & (1 << 22) == 0
}

/// Multiplies the `rows` rows of `weight` with the packed rows.
pub(super) fn multiply(
    x: Packed<u32>,
    weight: &[Bf16],
    rows: usize,
    out: &mut [Bf16],
    target: Target,
) {
    assert!(super::multiplies_bf16() && weight.len() == rows * x.features);
    assert!(x.holds(x.features / 2) && x.form.width.is_multiple_of(BF16_WIDE));
    assert!(x.features.is_multiple_of(2) && target.holds(rows, x.rows, out.len()));

    // SAFETY: the processor has the instructions; the lengths that `Part` asks for have just
    // been asserted.
    unsafe { all(x, weight, rows, out, target) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn all(x: Packed<u32>, weight: &[Bf16], rows: usize, out: &mut [Bf16], target: Target) {
    let blocks = x.form.width / BF16_WIDE;
    let part = Part { x, weight: weight.as_ptr(), out: out.as_mut_ptr(), rows, target };

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
                match (x.form.spread, tall, wide) {
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

    let lanes: [i32; BF16_WIDE] = std::array::from_fn(|lane| (lane * SPREAD % BF16_WIDE) as i32);
    // SAFETY: sixteen integers are a vector.
    _mm512_permutexvar_ps(unsafe { transmute::<[i32; BF16_WIDE], __m512i>(lanes) }, sums)
}

/// A product in progress. `weight` is `[rows, x.features]`, `out` holds all of `target`.
struct Part<'a> {
    x: Packed<'a, u32>,
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
            (self.weight.add(row * features), self.x.numbers.as_ptr().add(block * BF16_WIDE))
        };

        // What comes next of the weight is brought into the second cache meanwhile.
        let rows_ahead = (FETCHED_AHEAD / features).max(TALL);
        let ahead = if row + rows_ahead + TALL <= self.rows { rows_ahead * features } else { 0 };

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
                        pairs.add(pair / SPREAD * self.x.form.width + b * BF16_WIDE).cast(),
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
                let first = (block + b) * (BF16_WIDE / SPREAD);
                let sum = gathered::<SPREAD>(sum);
                let count = self.x.rows.saturating_sub(first).min(BF16_WIDE / SPREAD);
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

        let mask = (u16::MAX >> (BF16_WIDE - count)) as _;
        // SAFETY: only the columns of the mask are read and written, which `target` holds.
        unsafe {
            let to =
                self.out.add(self.target.first + row * self.target.stride + column).cast::<i16>();
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
