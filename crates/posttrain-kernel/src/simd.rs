//! The vectorized arithmetic under the kernels: run-time dispatch to the processor's widest units,
//! and exponentials.
//!
//! The loops are plain Rust that the compiler vectorizes; `pulp` compiles each kernel once for the
//! baseline and once for AVX2 with fused multiply-add, and picks at run time. No kernel depends on
//! the width: sums run over [`LANES`] independent lanes everywhere.

/// Independent partial sums of a vectorized loop: two AVX2 registers, enough to hide the latency of
/// an addition.
pub const LANES: usize = 16;

/// Work compiled for each instruction set and dispatched at run time.
pub trait Kernel {
    /// What the work returns.
    type Output;

    /// The work. Implementations carry `#[inline(always)]`, and so does what they call: only
    /// inlined code is compiled for the wider instruction set.
    fn run<const FMA: bool>(self) -> Self::Output;
}

/// Runs a kernel with the widest instructions of this processor.
pub fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    pulp::Arch::new().dispatch(Dispatched(kernel))
}

struct Dispatched<K>(K);

impl<K: Kernel> pulp::WithSimd for Dispatched<K> {
    type Output = K::Output;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _simd: S) -> K::Output {
        // Without the instruction, `mul_add` is a call into the C library, a hundred times the
        // price of the product.
        if S::IS_SCALAR { self.0.run::<false>() } else { self.0.run::<true>() }
    }
}

/// `a·b + c`, in one rounding where the processor can. (Without the instruction, `f32::mul_add` is a
/// call into the C library.)
#[inline(always)]
#[must_use]
pub fn mul_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// The larger of two values, and `b` where either is NaN (what the processor's own instruction
/// does).
#[inline(always)]
#[must_use]
pub fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// The smaller of two values, and `b` where either is NaN.
#[inline(always)]
#[must_use]
pub fn smaller(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// Exponents at or below this stand for a probability of zero: 2⁻¹²⁶ is the smallest normal number.
pub const LOWEST_EXPONENT: f32 = -126.0;

/// Adding 1.5 · 2²³ rounds to the nearest integer and leaves it in the lowest bits of the sum; the
/// further 127 makes of those bits, moved up by 23, the power of two itself.
const ROUND: f32 = 12_582_912.0 + 127.0;

/// `2^t` for `t ≤ 127.5`, within a relative error of 2.5e-7, exactly 1 at 0; NaN stays NaN.
///
/// Below [`LOWEST_EXPONENT`], -inf included, it is 2⁻¹²⁶, which no sum that holds a 1 can feel and
/// which never is a subnormal number (those are a hundred times slower).
#[inline(always)]
#[must_use]
pub fn exp2<const FMA: bool>(t: f32) -> f32 {
    let t = larger(LOWEST_EXPONENT, t);
    let rounded = t + ROUND;
    let fraction = t - (rounded - ROUND);
    scale::<FMA>(fraction, f32::from_bits(rounded.to_bits() << 23))
}

/// `e^x` within a relative error of 2.5e-7, exactly 1 at 0; 0 below -87, infinite above 88; NaN
/// stays NaN.
#[inline(always)]
#[must_use]
pub fn exp<const FMA: bool>(x: f32) -> f32 {
    // ln 2 in two parts, the first with so few bits that its product with an exponent is exact
    // (Cody and Waite).
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;

    let clamped = smaller(88.0, larger(-87.0, x));
    let rounded = mul_add::<FMA>(clamped, std::f32::consts::LOG2_E, ROUND);
    let exponent = rounded - ROUND;
    let rest = mul_add::<FMA>(exponent, -LN_2_LOW, mul_add::<FMA>(exponent, -LN_2_HIGH, clamped));

    let value =
        scale::<FMA>(rest * std::f32::consts::LOG2_E, f32::from_bits(rounded.to_bits() << 23));

    let value = if x < -87.0 { 0.0 } else { value };
    if x > 88.0 { f32::INFINITY } else { value }
}

/// `2^fraction`, |fraction| ≤ 1/2, times a power of two.
///
/// The polynomial is the minimax one of degree 5 with a constant term of exactly 1 (relative error
/// 1.1e-7).
#[expect(
    clippy::approx_constant,
    reason = "the coefficient is the polynomial's, near ln 2 and not ln 2"
)]
#[inline(always)]
fn scale<const FMA: bool>(fraction: f32, power: f32) -> f32 {
    let p = 1.326_472_7e-3;
    let p = mul_add::<FMA>(p, fraction, 9.671_513e-3);
    let p = mul_add::<FMA>(p, fraction, 5.550_733_6e-2);
    let p = mul_add::<FMA>(p, fraction, 2.402_224_2e-1);
    let p = mul_add::<FMA>(p, fraction, 6.931_47e-1);
    let p = mul_add::<FMA>(p, fraction, 1.0);
    p * power
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Exponentials<'a>(&'a [f32]);

    impl Kernel for Exponentials<'_> {
        type Output = Vec<(f32, f32)>;

        #[inline(always)]
        fn run<const FMA: bool>(self) -> Self::Output {
            self.0.iter().map(|&x| (exp2::<FMA>(x), exp::<FMA>(x))).collect()
        }
    }

    fn worst(values: &[f32], pairs: &[(f32, f32)]) -> (f64, f64) {
        let errors = values.iter().zip(pairs).map(|(&x, pair)| {
            let (two, e) = (f64::from(x).exp2(), f64::from(x).exp());
            ((f64::from(pair.0) / two - 1.0).abs(), (f64::from(pair.1) / e - 1.0).abs())
        });
        errors.fold((0.0, 0.0), |worst, error| {
            (f64::max(worst.0, error.0), f64::max(worst.1, error.1))
        })
    }

    #[test]
    fn exponentials_keep_their_stated_error_on_every_instruction_set() {
        let values: Vec<f32> = (-860_000..=860_000).map(|i| i as f32 * 1e-4).collect();
        for pairs in [dispatch(Exponentials(&values)), Exponentials(&values).run::<false>()] {
            let (two, e) = worst(&values, &pairs);
            assert!(two < 2.5e-7, "exp2 is off by {two}");
            assert!(e < 2.5e-7, "exp is off by {e}");
        }
    }

    #[test]
    fn exponentials_at_the_edges() {
        assert_eq!(exp2::<false>(0.0), 1.0);
        assert_eq!(exp::<false>(0.0), 1.0);
        assert_eq!(exp2::<false>(f32::NEG_INFINITY), f32::MIN_POSITIVE);
        assert_eq!(exp::<false>(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp::<false>(-1e30), 0.0);
        assert_eq!(exp::<false>(1e30), f32::INFINITY);
        assert!(exp2::<false>(f32::NAN).is_nan());
        assert!(exp::<false>(f32::NAN).is_nan());
        assert!(
            exp2::<false>(f32::from_bits(0x7fc0_0001)).is_nan(),
            "a payload does not hide a NaN"
        );
    }
}
