//! The prime factors of a number, as far as they are small.

use num_bigint::{BigInt, BigUint};

use crate::math::canonical::Algebra;
use crate::math::polynomial::MAX_BITS;

/// Primes up to this one are divided out of radicands.
const MAX_PRIME: u32 = 1000;

/// A factor of a number.
pub(crate) enum Factor {
    Prime(u32),
    /// Without prime factors below a thousand, and no square.
    Large(BigInt),
}

impl Factor {
    pub fn key(&self) -> String {
        match self {
            Self::Prime(prime) => format!("prime {prime}"),
            Self::Large(rest) => format!("radical {rest}"),
        }
    }
}

impl Algebra {
    /// The prime factors of a number's magnitude; what is left after the primes below a thousand
    /// counts as one.
    pub(crate) fn factors(&mut self, number: &BigInt) -> Option<Vec<(Factor, i64)>> {
        let mut rest = number.magnitude().clone();
        if rest.bits() > MAX_BITS {
            return None;
        }
        let mut factors = Vec::new();
        let mut prime = 2u32;
        while prime <= MAX_PRIME && rest.bits() > 1 {
            let mut count = 0;
            while &rest % prime == BigUint::ZERO {
                rest /= prime;
                count += 1;
                self.atoms.spend(1 + (rest.bits() / 1024) as usize)?;
            }
            factors.extend((count > 0).then_some((Factor::Prime(prime), count)));
            prime += 1 + (prime & 1);
        }
        // Below the square of the first prime that was not tried, what is left is prime.
        match u32::try_from(&rest) {
            Ok(1) => {}
            Ok(prime) if prime < MAX_PRIME * MAX_PRIME => factors.push((Factor::Prime(prime), 1)),
            _ => factors.push(square(rest)),
        }
        Some(factors)
    }
}

/// What is left of a number, as the square of another where it is one.
fn square(rest: BigUint) -> (Factor, i64) {
    let root = rest.sqrt();
    match u32::try_from(&root) {
        Ok(prime) if prime < MAX_PRIME * MAX_PRIME && &root * &root == rest => {
            (Factor::Prime(prime), 2)
        }
        _ if &root * &root == rest => (Factor::Large(BigInt::from(root)), 2),
        _ => (Factor::Large(BigInt::from(rest)), 1),
    }
}
