//! SentencePiece's compiled map of normalizations, walked before it is used.
//!
//! The map is the trie's length in bytes, the trie (a double array of 32-bit units), and the texts
//! that its leaves point into. `spm_precompiled`, which reads it, follows every pointer unchecked.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The largest map that is walked, in bytes of the file: SentencePiece's own has 0.3 MB.
const MAX_BYTES: usize = 4 << 20;

/// What is wrong with a map.
pub(super) fn check(encoded: &str) -> Result<(), String> {
    if encoded.len() > MAX_BYTES {
        return Err(format!("is longer than {MAX_BYTES} bytes"));
    }
    let bytes = STANDARD.decode(encoded).map_err(|_| "is not base64".to_owned())?;
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(|| "is cut short".to_owned())?;
    let length = u32::from_le_bytes(*length) as usize;
    let (trie, texts) =
        rest.split_at_checked(length / 4 * 4).ok_or_else(|| "is cut short".to_owned())?;

    let units: Vec<u32> =
        trie.as_chunks::<4>().0.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
    let texts =
        std::str::from_utf8(texts).map_err(|_| "has texts that are not UTF-8".to_owned())?;
    Trie { units, texts }.walk().ok_or_else(|| "points outside of itself".to_owned())
}

struct Trie<'a> {
    units: Vec<u32>,
    texts: &'a str,
}

impl Trie<'_> {
    /// Follows every pointer there is from the root; `None` for one that leads nowhere.
    fn walk(&self) -> Option<()> {
        let root = offset(*self.units.first()?);
        let mut seen = vec![false; self.units.len()];
        let mut waiting = vec![root];

        while let Some(node) = waiting.pop() {
            for byte in 1..=255 {
                let at = node ^ byte as usize;
                let unit = *self.units.get(at)?;
                if label(unit) != byte {
                    continue;
                }

                let next = at ^ offset(unit);
                if has_leaf(unit) {
                    self.leaf(next)?;
                }
                if !std::mem::replace(seen.get_mut(next)?, true) {
                    waiting.push(next);
                }
            }
        }
        Some(())
    }

    fn leaf(&self, at: usize) -> Option<()> {
        let start = (*self.units.get(at)? & 0x7fff_ffff) as usize;
        self.texts.is_char_boundary(start).then_some(())
    }
}

fn has_leaf(unit: u32) -> bool {
    unit >> 8 & 1 == 1
}

fn label(unit: u32) -> u32 {
    unit & (1 << 31 | 0xff)
}

fn offset(unit: u32) -> usize {
    ((unit >> 10) as usize) << ((unit & 1 << 9) >> 6)
}
