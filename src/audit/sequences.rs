//! Which of many messages: a bit each, in pages that are made when they are first needed.

use std::io::{Read as _, Write as _};
use std::ops::RangeInclusive;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;

/// Messages of a run that are told apart. Those beyond are counted, and nothing is known of each. A full set takes 128 MiB.
pub const SEQUENCES_MAX: u64 = 1 << 30;
/// Bits of a page, which takes 32 KiB.
const PAGE_BITS: u64 = 1 << 18;
/// Words of a page.
const PAGE_WORDS: usize = (PAGE_BITS / 64) as usize;
/// Pages of a full set.
const PAGES: usize = (SEQUENCES_MAX / PAGE_BITS) as usize;

/// What became of a number that was put into a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It is new.
    New,
    /// It was there already.
    Again,
    /// It is beyond [`SEQUENCES_MAX`] and not kept.
    Beyond,
}

/// A set of the numbers below [`SEQUENCES_MAX`], into which several shards put theirs at once, without a lock.
pub struct Sequences {
    pages: Box<[OnceLock<Box<[AtomicU64]>>]>,
}

impl Default for Sequences {
    fn default() -> Sequences {
        Sequences::new()
    }
}

impl std::fmt::Debug for Sequences {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sequences")
            .field("pages", &self.pages.iter().filter(|page| page.get().is_some()).count())
            .finish()
    }
}

impl Sequences {
    /// The empty set.
    pub fn new() -> Sequences {
        Sequences { pages: (0..PAGES).map(|_| OnceLock::new()).collect() }
    }

    /// Puts a number in.
    #[inline]
    pub fn insert(&self, sequence: u64) -> Inserted {
        let Some(page) = self.pages.get((sequence / PAGE_BITS) as usize) else { return Inserted::Beyond };
        let page = page.get_or_init(|| (0..PAGE_WORDS).map(|_| AtomicU64::new(0)).collect());
        let bit = 1 << (sequence % 64);
        // Relaxed is enough: the bits themselves are all that the set passes on.
        match page[(sequence % PAGE_BITS / 64) as usize].fetch_or(bit, Ordering::Relaxed) & bit {
            0 => Inserted::New,
            _ => Inserted::Again,
        }
    }

    /// Whether a number is in it.
    pub fn contains(&self, sequence: u64) -> bool {
        self.word(sequence / 64) >> (sequence % 64) & 1 == 1
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        let pages = self.pages.iter().filter_map(OnceLock::get);
        pages.flat_map(|page| page.iter()).map(|word| u64::from(word.load(Ordering::Relaxed).count_ones())).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Octets that it takes.
    pub fn bytes(&self) -> usize {
        let pages = self.pages.iter().filter(|page| page.get().is_some()).count();
        size_of_val(&*self.pages) + pages * PAGE_WORDS * size_of::<u64>()
    }

    /// The 64 numbers from `64 * index` on.
    fn word(&self, index: u64) -> u64 {
        let page = self.pages.get((index / PAGE_WORDS as u64) as usize).and_then(OnceLock::get);
        page.map_or(0, |page| page[(index % PAGE_WORDS as u64) as usize].load(Ordering::Relaxed))
    }

    /// Adds all of another set, and says how many of them were here already.
    pub fn merge(&self, other: &Sequences) -> u64 {
        let mut again = 0;
        for (index, page) in other.pages.iter().enumerate().filter_map(|(index, page)| Some((index, page.get()?))) {
            let own = self.pages[index].get_or_init(|| (0..PAGE_WORDS).map(|_| AtomicU64::new(0)).collect());
            for (own, word) in own.iter().zip(page.iter()) {
                let word = word.load(Ordering::Relaxed);
                again += u64::from((own.fetch_or(word, Ordering::Relaxed) & word).count_ones());
            }
        }
        again
    }

    /// Those that are not in `other`: how many, and the first of them as at most `ranges_max` ranges, in their order.
    pub fn without(&self, other: &Sequences, ranges_max: usize) -> Missing {
        let mut missing = Missing::default();
        for at in (0..PAGES).filter(|&at| self.pages[at].get().is_some()) {
            for index in (at * PAGE_WORDS) as u64..((at + 1) * PAGE_WORDS) as u64 {
                let mut word = self.word(index) & !other.word(index);
                while word != 0 {
                    let first = word.trailing_zeros();
                    let length = (word >> first).trailing_ones();
                    let begin = 64 * index + u64::from(first);
                    missing.add(begin..=begin + u64::from(length) - 1, ranges_max);
                    word &= !(u64::MAX >> (64 - length) << first);
                }
            }
        }
        missing
    }

    /// The set as text: its bits, the lowest first, deflated (RFC 1951), in base64.
    pub fn encode(&self) -> String {
        let mut out = DeflateEncoder::new(Vec::new(), Compression::fast());
        let last = self.pages.iter().rposition(|page| page.get().is_some()).map_or(0, |last| last + 1);
        for index in 0..(last * PAGE_WORDS) as u64 {
            out.write_all(&self.word(index).to_le_bytes()).expect("memory takes what is written");
        }
        BASE64.encode(out.finish().expect("memory takes what is written"))
    }

    /// Reads what [`Sequences::encode`] has written.
    ///
    /// # Errors
    ///
    /// What was expected of the text.
    pub fn decode(text: &str) -> Result<Sequences, String> {
        let expected = |got: String| format!("expected a deflated set of sequences in base64, got {got}");
        let packed = BASE64.decode(text).map_err(|error| expected(error.to_string()))?;
        let mut bits = DeflateDecoder::new(&packed[..]).take(SEQUENCES_MAX / 8 + 1);
        let set = Sequences::new();
        let mut page = vec![0; PAGE_WORDS * 8];
        for index in 0.. {
            let mut length = 0;
            while length < page.len() {
                match bits.read(&mut page[length..]).map_err(|error| expected(error.to_string()))? {
                    0 => break,
                    read => length += read,
                }
            }
            if length == 0 {
                break;
            }
            let Some(own) = set.pages.get(index) else {
                return Err(expected(format!("more than {SEQUENCES_MAX} bits")));
            };
            page[length..].fill(0);
            let word = |octets: &[u8]| {
                AtomicU64::new(octets.iter().rev().fold(0, |word, octet| word << 8 | u64::from(*octet)))
            };
            let words = page.chunks_exact(8).map(word).collect();
            own.set(words).expect("each page is read once");
        }
        Ok(set)
    }
}

/// Numbers that one set has and another has not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// How many.
    pub count: u64,
    /// The first of them.
    pub ranges: Vec<RangeInclusive<u64>>,
    /// How many of them are in no range.
    pub unnamed: u64,
}

impl Missing {
    /// Adds a range behind all others.
    fn add(&mut self, range: RangeInclusive<u64>, ranges_max: usize) {
        let count = range.end() - range.start() + 1;
        self.count += count;
        if self.unnamed == 0
            && let Some(last) = self.ranges.last_mut()
            && last.end() + 1 == *range.start()
        {
            *last = *last.start()..=*range.end();
        } else if self.unnamed == 0 && self.ranges.len() < ranges_max {
            self.ranges.push(range);
        } else {
            self.unnamed += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::thread;

    fn set(numbers: impl IntoIterator<Item = u64>) -> Sequences {
        let set = Sequences::new();
        numbers.into_iter().for_each(|number| _ = set.insert(number));
        set
    }

    #[test]
    fn a_hundred_million_messages_accepted_and_arrived_take_less_than_64_mib() {
        const MESSAGES: u64 = 100_000_000;
        // A number of each page is enough for all of the page.
        let pages = || set((0..MESSAGES).step_by(PAGE_BITS as usize).chain([MESSAGES - 1]));
        let (accepted, arrived) = (pages(), pages());
        assert!(accepted.bytes() as u64 >= MESSAGES / 8, "{}", accepted.bytes());
        assert!(accepted.bytes() + arrived.bytes() < 64 << 20, "{} octets", accepted.bytes() + arrived.bytes());
    }

    #[test]
    fn what_is_new_is_told_from_what_comes_again() {
        let set = Sequences::new();
        for number in [0, 63, 64, PAGE_BITS, SEQUENCES_MAX - 1] {
            assert_eq!(set.insert(number), Inserted::New, "{number}");
            assert_eq!(set.insert(number), Inserted::Again, "{number}");
            assert!(set.contains(number) && !set.contains(number + 1));
        }
        assert_eq!(set.insert(SEQUENCES_MAX), Inserted::Beyond);
        assert_eq!(set.insert(u64::MAX), Inserted::Beyond);
        assert_eq!(set.len(), 5);
    }

    #[test]
    fn shards_that_insert_at_once_lose_nothing() {
        let set = Sequences::new();
        let news: u64 = thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| (0..100_000).filter(|&number| set.insert(number) == Inserted::New).count() as u64)
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((news, set.len()), (100_000, 100_000));
    }

    #[test]
    fn what_is_missing_is_named_in_ranges_up_to_a_bound() {
        let missing = set(0..1_000_000).without(&set((0..100).chain(300..999_999)), 10);
        assert_eq!(missing.count, 201);
        assert_eq!((missing.ranges, missing.unnamed), (vec![100..=299, 999_999..=999_999], 0));
        let missing = set(0..100).without(&set((0..100).step_by(2)), 3);
        assert_eq!((missing.count, missing.ranges.len(), missing.unnamed), (50, 3, 47));
    }

    #[test]
    fn a_text_that_is_no_set_is_refused() {
        for text in ["?", "AAAA", "////////"] {
            assert!(Sequences::decode(text).unwrap_err().starts_with("expected a deflated set"), "{text}");
        }
        // Zeros without end, which take no room on their way.
        let mut bomb = DeflateEncoder::new(Vec::new(), Compression::best());
        (0..SEQUENCES_MAX / 8 / 1_024 + 1).for_each(|_| bomb.write_all(&[0; 1_024]).unwrap());
        let bomb = BASE64.encode(bomb.finish().unwrap());
        assert!(Sequences::decode(&bomb).unwrap_err().contains("more than"));
    }

    proptest! {
        #[test]
        fn sets_say_what_sets_of_numbers_say(
            one in proptest::collection::btree_set(0u64..600_000, 0..200),
            other in proptest::collection::btree_set(0u64..600_000, 0..200),
            length in 0u64..2_000,
        ) {
            let one: BTreeSet<u64> = one.into_iter().chain(1_000..1_000 + length).collect();
            let (first, second) = (set(one.iter().copied()), set(other.iter().copied()));
            let missing = first.without(&second, usize::MAX);
            let named: Vec<u64> = missing.ranges.iter().cloned().flatten().collect();
            let difference: Vec<u64> = one.difference(&other).copied().collect();
            prop_assert_eq!(&named, &difference);
            prop_assert_eq!((missing.count, missing.unnamed), (difference.len() as u64, 0));
            prop_assert!(missing.ranges.windows(2).all(|pair| pair[0].end() + 1 < *pair[1].start()));
            let read = Sequences::decode(&first.encode()).unwrap();
            prop_assert_eq!(read.without(&first, 1).count + first.without(&read, 1).count, 0);
            prop_assert_eq!(read.merge(&second), one.intersection(&other).count() as u64);
            prop_assert_eq!(read.len(), one.union(&other).count() as u64);
        }
    }
}
