//! Numbers drawn by a seed and a message's number, so that any message's draw can be had again at any time.

/// The draw of message `sequence`: the output function of SplitMix64 (Steele, Lea and Flood, 2014) on a counter.
#[inline]
pub(super) fn draw(seed: u64, sequence: u64) -> u64 {
    let mut z = seed.wrapping_add(sequence.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The same as a number below `end`.
#[inline]
pub(super) fn draw_below(seed: u64, sequence: u64, end: u64) -> u64 {
    ((u128::from(draw(seed, sequence)) * u128::from(end)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_those_of_the_reference() {
        // The first outputs of SplitMix64 seeded with 0.
        assert_eq!(
            [0, 1, 2].map(|sequence| draw(0, sequence)),
            [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f]
        );
    }

    #[test]
    fn every_number_below_the_end_is_drawn_about_as_often() {
        let mut counts = [0; 7];
        (0..70_000).for_each(|sequence| counts[draw_below(3, sequence, 7) as usize] += 1);
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
        assert_eq!(draw_below(1, u64::MAX, 1), 0);
    }
}
