//! The blocks that a GGUF file's weights are stored in, and the numbers that they stand for.
//!
//! As llama.cpp has them (`ggml/src/ggml-quants.c`). A block of 32 numbers has one scale, and one
//! smallest number in the forms that end in 1; a block of 256 has scales of scales.

use half::{bf16, f16};

/// How numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BlockForm {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
}

impl BlockForm {
    /// The form that a file has this number for.
    pub fn of(kind: u32) -> Option<Self> {
        Some(match kind {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            10 => Self::Q2K,
            11 => Self::Q3K,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            30 => Self::Bf16,
            _ => return None,
        })
    }

    /// Numbers of a block.
    pub fn numbers(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes of a block.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q2K => 84,
            Self::Q3K => 110,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// The numbers of whole blocks.
    pub fn dequantized(self, blocks: &[u8]) -> Vec<f32> {
        let mut numbers = vec![0.0; blocks.len() / self.bytes() * self.numbers()];
        let each = numbers.chunks_exact_mut(self.numbers());
        for (block, to) in blocks.chunks_exact(self.bytes()).zip(each) {
            match self {
                Self::F32 => to[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]),
                Self::F16 => to[0] = half_at(block, 0),
                Self::Bf16 => to[0] = bf16::from_le_bytes([block[0], block[1]]).to_f32(),
                Self::Q4_0 => q4_0(block, to),
                Self::Q4_1 => q4_1(block, to),
                Self::Q5_0 => q5_0(block, to),
                Self::Q5_1 => q5_1(block, to),
                Self::Q8_0 => q8_0(block, to),
                Self::Q2K => q2_k(block, to),
                Self::Q3K => q3_k(block, to),
                Self::Q4K => q4_k(block, to),
                Self::Q5K => q5_k(block, to),
                Self::Q6K => q6_k(block, to),
            }
        }
        numbers
    }
}

fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// The lower four bits of each byte are the first half's numbers, the upper four the second half's.
fn q4_0(block: &[u8], to: &mut [f32]) {
    let scale = half_at(block, 0);
    for (i, byte) in block[2..18].iter().enumerate() {
        to[i] = scale * (f32::from(byte & 0xf) - 8.0);
        to[i + 16] = scale * (f32::from(byte >> 4) - 8.0);
    }
}

fn q4_1(block: &[u8], to: &mut [f32]) {
    let scale = half_at(block, 0);
    let least = half_at(block, 2);
    for (i, byte) in block[4..20].iter().enumerate() {
        to[i] = f32::from(byte & 0xf) * scale + least;
        to[i + 16] = f32::from(byte >> 4) * scale + least;
    }
}

/// The fifth bits of 32 numbers stand in four bytes of their own.
fn five_bits(high: &[u8], low: &[u8], i: usize) -> [f32; 2] {
    let high = u32::from_le_bytes([high[0], high[1], high[2], high[3]]);
    let bit = |place: usize| ((high >> place & 1) as u8) << 4;
    [f32::from(low[i] & 0xf | bit(i)), f32::from(low[i] >> 4 | bit(i + 16))]
}

fn q5_0(block: &[u8], to: &mut [f32]) {
    let scale = half_at(block, 0);
    for i in 0..16 {
        let [first, second] = five_bits(&block[2..6], &block[6..22], i);
        to[i] = (first - 16.0) * scale;
        to[i + 16] = (second - 16.0) * scale;
    }
}

fn q5_1(block: &[u8], to: &mut [f32]) {
    let scale = half_at(block, 0);
    let least = half_at(block, 2);
    for i in 0..16 {
        let [first, second] = five_bits(&block[4..8], &block[8..24], i);
        to[i] = first * scale + least;
        to[i + 16] = second * scale + least;
    }
}

fn q8_0(block: &[u8], to: &mut [f32]) {
    let scale = half_at(block, 0);
    for (to, byte) in to.iter_mut().zip(&block[2..34]) {
        *to = f32::from(*byte as i8) * scale;
    }
}

/// Sixteen numbers have a scale of four bits and a least number of four.
fn q2_k(block: &[u8], to: &mut [f32]) {
    let (scales, bits) = (&block[..16], &block[16..80]);
    let scale = half_at(block, 80);
    let least = half_at(block, 82);

    for (sixteen, to) in to.chunks_exact_mut(16).enumerate() {
        let own = scale * f32::from(scales[sixteen] & 0xf);
        let least = least * f32::from(scales[sixteen] >> 4);
        let (first, shift) = two_bits(sixteen);
        for (to, byte) in to.iter_mut().zip(&bits[first..]) {
            *to = own * f32::from(byte >> shift & 3) - least;
        }
    }
}

/// Where the two bits of sixteen numbers begin: 32 bytes hold those of 128 numbers, two bits deep for
/// each 32 of them.
fn two_bits(sixteen: usize) -> (usize, usize) {
    (sixteen / 8 * 32 + sixteen % 2 * 16, sixteen % 8 / 2 * 2)
}

/// As [`q2_k`], with a third bit apart, and scales of six bits of which two stand apart.
fn q3_k(block: &[u8], to: &mut [f32]) {
    let (high, bits, packed) = (&block[..32], &block[32..96], &block[96..108]);
    let scale = half_at(block, 108);

    for (sixteen, to) in to.chunks_exact_mut(16).enumerate() {
        let low = packed[sixteen % 8] >> (sixteen / 8 * 4) & 0xf;
        let upper = packed[8 + sixteen % 4] >> (sixteen / 4 * 2) & 3;
        let own = scale * (f32::from(low | upper << 4) - 32.0);

        let (first, shift) = two_bits(sixteen);
        let third = sixteen / 2;
        let high = &high[sixteen % 2 * 16..];
        for ((to, byte), high) in to.iter_mut().zip(&bits[first..]).zip(high) {
            let missing = if high >> third & 1 == 1 { 0.0 } else { 4.0 };
            *to = own * (f32::from(byte >> shift & 3) - missing);
        }
    }
}

/// The scale and the least number of 32 numbers, six bits each, of which the later ones' upper two
/// stand with the earlier ones.
fn six_bits(packed: &[u8], index: usize) -> [f32; 2] {
    let (scale, least) = match index {
        0..4 => (packed[index] & 63, packed[index + 4] & 63),
        _ => (
            packed[index + 4] & 0xf | packed[index - 4] >> 6 << 4,
            packed[index + 4] >> 4 | packed[index] >> 6 << 4,
        ),
    };
    [scale.into(), least.into()]
}

fn q4_k(block: &[u8], to: &mut [f32]) {
    let (packed, bits) = (&block[4..16], &block[16..144]);
    let scale = half_at(block, 0);
    let least = half_at(block, 2);

    for (part, to) in to.chunks_exact_mut(32).enumerate() {
        let [own, own_least] = six_bits(packed, part);
        let shift = part % 2 * 4;
        for (to, byte) in to.iter_mut().zip(&bits[part / 2 * 32..]) {
            *to = scale * own * f32::from(byte >> shift & 0xf) - least * own_least;
        }
    }
}

/// As [`q4_k`], with a fifth bit apart.
fn q5_k(block: &[u8], to: &mut [f32]) {
    let (packed, high, bits) = (&block[4..16], &block[16..48], &block[48..176]);
    let scale = half_at(block, 0);
    let least = half_at(block, 2);

    for (part, to) in to.chunks_exact_mut(32).enumerate() {
        let [own, own_least] = six_bits(packed, part);
        let shift = part % 2 * 4;
        for ((to, byte), high) in to.iter_mut().zip(&bits[part / 2 * 32..]).zip(high) {
            let number = byte >> shift & 0xf | (high >> part & 1) << 4;
            *to = scale * own * f32::from(number) - least * own_least;
        }
    }
}

/// Four bits in one place, two in another, and a scale of eight bits for sixteen numbers.
fn q6_k(block: &[u8], to: &mut [f32]) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let scale = half_at(block, 208);

    for (sixteen, to) in to.chunks_exact_mut(16).enumerate() {
        let own = scale * f32::from(scales[sixteen] as i8);
        // Of each 128 numbers: 64 bytes of four bits, twice deep, and 32 bytes of two, four deep.
        let (half, part, rest) = (sixteen / 8, sixteen % 8 / 2, sixteen % 2 * 16);
        let low = &low[half * 64 + part % 2 * 32 + rest..];
        let high = &high[half * 32 + rest..];
        for ((to, low), high) in to.iter_mut().zip(low).zip(high) {
            let number = low >> (part / 2 * 4) & 0xf | (high >> (part * 2) & 3) << 4;
            *to = own * (f32::from(number) - 32.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::quantized::{GgmlDType, QTensor};
    use candle_core::{Device, Tensor};

    /// Blocks that candle has quantized, dequantized here and by candle.
    #[test]
    fn every_form_stands_for_the_numbers_that_candle_reads() {
        let numbers: Vec<f32> = (0..4 * 512)
            .map(|i| ((i as f32 * 12.9898).sin() * 43_758.547).fract() * (1.0 + (i / 100) as f32))
            .collect();
        let tensor = Tensor::from_vec(numbers, (4, 512), &Device::Cpu).unwrap();
        for (form, kind, dtype) in [
            (BlockForm::F32, 0, GgmlDType::F32),
            (BlockForm::F16, 1, GgmlDType::F16),
            (BlockForm::Bf16, 30, GgmlDType::BF16),
            (BlockForm::Q4_0, 2, GgmlDType::Q4_0),
            (BlockForm::Q4_1, 3, GgmlDType::Q4_1),
            (BlockForm::Q5_0, 6, GgmlDType::Q5_0),
            (BlockForm::Q5_1, 7, GgmlDType::Q5_1),
            (BlockForm::Q8_0, 8, GgmlDType::Q8_0),
            (BlockForm::Q2K, 10, GgmlDType::Q2K),
            (BlockForm::Q3K, 11, GgmlDType::Q3K),
            (BlockForm::Q4K, 12, GgmlDType::Q4K),
            (BlockForm::Q5K, 13, GgmlDType::Q5K),
            (BlockForm::Q6K, 14, GgmlDType::Q6K),
        ] {
            assert_eq!(BlockForm::of(kind), Some(form));
            assert_eq!((form.numbers(), form.bytes()), (dtype.block_size(), dtype.type_size()));

            let stored = QTensor::quantize(&tensor, dtype).unwrap();
            let expected = stored.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap();
            let expected: Vec<f32> = expected.to_vec1().unwrap();
            let got = form.dequantized(&stored.data().unwrap());
            assert_eq!(got.len(), expected.len());
            for (place, (got, expected)) in got.iter().zip(&expected).enumerate() {
                let off = (got - expected).abs();
                assert!(
                    off <= 1e-6 * expected.abs().max(1.0),
                    "{form:?}[{place}]: {got}, {expected}"
                );
            }
        }
    }
}
