//! How large generated messages are.

use std::fmt;
use std::sync::Arc;

use super::MESSAGE_BYTES_MAX;
use super::draw::draw_below;

/// Most sizes in a mix.
pub const SIZES_MAX: usize = 64;
/// Greatest weight of a size.
pub const SIZE_WEIGHT_MAX: u64 = 1_000_000;
/// What keeps the draws of sizes apart from others of the same seed.
const STREAM: u64 = 0x73_69_7a_65_73;

/// A size, and how often messages have it beside the others of its mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightedSize {
    /// Octets.
    pub bytes: u64,
    /// Its share of all messages is this weight's of all weights.
    pub weight: u64,
}

/// The sizes of a job's messages: one, or a mix from which each message draws its own. Cloning shares the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes {
    list: Arc<[WeightedSize]>,
    weights: u64,
    seed: u64,
}

/// Sizes that no job can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizesError {
    /// None, or too many.
    #[error("expected 1 to {SIZES_MAX} sizes, got {0}")]
    Count(usize),
    /// A message would be too large.
    #[error("expected at most {MESSAGE_BYTES_MAX} octets, got {0}")]
    Bytes(u64),
    /// A size would never come, or the weights cannot be added up.
    #[error("expected a weight of 1 to {SIZE_WEIGHT_MAX}, got {0}")]
    Weight(u64),
}

impl Sizes {
    /// One size for all.
    pub fn exactly(bytes: u64) -> Sizes {
        Sizes { list: Arc::new([WeightedSize { bytes, weight: 1 }]), weights: 1, seed: 0 }
    }

    /// A mix. `seed` decides which message has which size.
    ///
    /// # Errors
    ///
    /// When it has no size or more than [`SIZES_MAX`], a size above [`MESSAGE_BYTES_MAX`], or a weight that is 0 or above
    /// [`SIZE_WEIGHT_MAX`].
    pub fn mix(list: &[WeightedSize], seed: u64) -> Result<Sizes, SizesError> {
        if !(1..=SIZES_MAX).contains(&list.len()) {
            return Err(SizesError::Count(list.len()));
        }
        for &WeightedSize { bytes, weight } in list {
            if bytes > MESSAGE_BYTES_MAX {
                return Err(SizesError::Bytes(bytes));
            }
            if !(1..=SIZE_WEIGHT_MAX).contains(&weight) {
                return Err(SizesError::Weight(weight));
            }
        }
        let weights = list.iter().map(|size| size.weight).sum();
        Ok(Sizes { list: list.into(), weights, seed: seed ^ STREAM })
    }

    /// Which of [`Sizes::list`] message `sequence` has.
    #[inline]
    pub fn index_of(&self, sequence: u64) -> usize {
        if self.list.len() == 1 {
            return 0;
        }
        let mut drawn = draw_below(self.seed, sequence, self.weights);
        let place = self.list.iter().position(|size| match drawn.checked_sub(size.weight) {
            Some(left) => {
                drawn = left;
                false
            }
            None => true,
        });
        place.unwrap_or_default()
    }

    /// Octets of message `sequence`.
    #[inline]
    pub fn of(&self, sequence: u64) -> u64 {
        self.list[self.index_of(sequence)].bytes
    }

    /// All sizes, in the order in which they were given.
    pub fn list(&self) -> &[WeightedSize] {
        &self.list
    }

    /// Whether there are several.
    #[inline]
    pub fn is_mix(&self) -> bool {
        self.list.len() > 1
    }

    /// The least size, in octets.
    pub fn least(&self) -> u64 {
        self.list.iter().map(|size| size.bytes).min().unwrap_or_default()
    }

    /// The greatest size, in octets.
    pub fn greatest(&self) -> u64 {
        self.list.iter().map(|size| size.bytes).max().unwrap_or_default()
    }
}

impl fmt::Display for Sizes {
    /// As on the command line: `1024`, or `2000:70,100000:30`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [WeightedSize { bytes, .. }] = *self.list {
            return write!(f, "{bytes}");
        }
        for (i, WeightedSize { bytes, weight }) in self.list.iter().enumerate() {
            write!(f, "{}{bytes}:{weight}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(bytes: u64, weight: u64) -> WeightedSize {
        WeightedSize { bytes, weight }
    }

    #[test]
    fn a_mix_comes_in_the_shares_of_its_weights_and_is_repeated_by_its_seed() {
        let sizes = Sizes::mix(&[size(2_000, 70), size(100_000, 20), size(5, 10)], 9).unwrap();
        let all: Vec<u64> = (0..100_000).map(|sequence| sizes.of(sequence)).collect();
        for (bytes, expected) in [(2_000, 70_000), (100_000, 20_000), (5, 10_000)] {
            let count = all.iter().filter(|size| **size == bytes).count();
            assert!(count.abs_diff(expected) < 1_000, "{bytes}: {count}");
        }
        let again = Sizes::mix(sizes.list(), 9).unwrap();
        assert!((0..1_000).all(|sequence| again.of(sequence) == all[sequence as usize]));
        let other = Sizes::mix(sizes.list(), 10).unwrap();
        assert!((0..1_000).any(|sequence| other.of(sequence) != all[sequence as usize]));
        assert_eq!(
            (sizes.least(), sizes.greatest(), sizes.to_string().as_str()),
            (5, 100_000, "2000:70,100000:20,5:10")
        );
    }

    #[test]
    fn one_size_is_no_mix() {
        let sizes = Sizes::exactly(7);
        assert!(!sizes.is_mix() && (0..9).all(|sequence| sizes.of(sequence) == 7));
        assert_eq!(sizes.to_string(), "7");
    }

    #[test]
    fn sizes_out_of_bounds_are_refused() {
        assert_eq!(Sizes::mix(&[], 0).unwrap_err(), SizesError::Count(0));
        assert_eq!(Sizes::mix(&[size(1, 1); 65], 0).unwrap_err(), SizesError::Count(65));
        assert_eq!(Sizes::mix(&[size(1, 0)], 0).unwrap_err(), SizesError::Weight(0));
        let bytes = MESSAGE_BYTES_MAX + 1;
        assert_eq!(Sizes::mix(&[size(bytes, 1)], 0).unwrap_err(), SizesError::Bytes(bytes));
    }
}
