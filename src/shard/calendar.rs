//! From the kernel's stamps, which are calendar time, to instants.

use crate::measure::stamps::Stamps;
use crate::time::{Instant, WallTime};

/// A gap between two readings of the clocks that needs no closer look: what a step of the calendar could hide in.
const GAP_NS_MAX: i64 = 1_000;

/// How far the calendar is ahead of the shard's clock, and so when a stamp was by the latter.
///
/// Both clocks go at the same rate, whatever disciplines them; what lies between them changes only when the calendar is set.
/// Each turn reads the calendar right behind its own clock, so the least difference that was ever read is the truth but for the
/// shortest gap between two readings, some 30 ns. A greater one is a long gap, or a step forward: a third reading tells
/// them apart. A smaller one than is possible is a step back. Stamps of a turn in which a step is seen are not used,
/// since nobody knows on which side of it they were taken.
#[derive(Debug, Default)]
pub struct Calendar {
    /// Between these the difference lies, in nanoseconds; the upper one is used.
    offset: Option<(i64, i64)>,
    usable: bool,
    /// What came of the stamps since this was last taken.
    pub stamps: Stamps,
}

impl Calendar {
    /// Begins a turn: `wall` was read right behind `now`; `again` reads the clock once more.
    #[inline]
    pub fn turn(&mut self, (now, wall): (Instant, WallTime), again: impl FnOnce() -> Instant) {
        let high = ahead(wall, now);
        match &mut self.offset {
            Some((low, known)) if *known - *low <= GAP_NS_MAX && (*low..=*known + GAP_NS_MAX).contains(&high) => {
                *known = high.min(*known);
                self.usable = true;
            }
            _ => self.look_closer(ahead(wall, again()), high),
        }
    }

    /// The difference lies between `low` and `high` for certain.
    #[cold]
    fn look_closer(&mut self, low: i64, high: i64) {
        let known = self.offset.filter(|&(known_low, known_high)| high >= known_low && low <= known_high);
        let stepped = self.offset.is_some() && known.is_none();
        let (low, high) = known.map_or((low, high), |known| (low.max(known.0), high.min(known.1)));
        self.offset = Some((low, high));
        self.stamps.steps += u64::from(stepped);
        self.usable = !stepped && high - low <= GAP_NS_MAX;
    }

    /// When something arrived that was given to the shard by `now`, and cannot have arrived before `earliest`: by its
    /// stamp, or by `now` where it has none that can be used.
    #[inline]
    pub fn arrival(&mut self, stamp: Option<WallTime>, earliest: Instant, now: Instant) -> Instant {
        let (Some(stamp), true, Some((_, offset))) = (stamp, self.usable, self.offset) else {
            self.stamps.turn += 1;
            return now;
        };
        let stamped = (stamp.as_unix_ns() as i64).saturating_sub(offset).max(0) as u64;
        let at = Instant::from_ns(stamped).max(earliest).min(now);
        self.stamps.kernel += 1;
        self.stamps.clamped += u64::from(at.as_ns() != stamped);
        at
    }
}

fn ahead(wall: WallTime, now: Instant) -> i64 {
    (wall.as_unix_ns() as i64).wrapping_sub(now.as_ns() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: u64 = 1_800_000_000_000_000_000;

    fn at(ns: u64) -> Instant {
        Instant::from_ns(ns)
    }

    fn wall(ns: u64) -> WallTime {
        WallTime::from_unix_ns(EPOCH + ns)
    }

    /// A turn at `now`, whose calendar is ahead by `ahead` beside the epoch, with gaps behind the readings.
    fn turn(calendar: &mut Calendar, now: u64, ahead: i64, gaps: [u64; 2]) {
        let read = wall((now + gaps[0]).wrapping_add_signed(ahead));
        calendar.turn((at(now), read), || at(now + gaps[0] + gaps[1]));
    }

    #[test]
    fn a_stamp_is_the_instant_at_which_it_was_taken() {
        let mut calendar = Calendar::default();
        turn(&mut calendar, 1_000_000, 0, [30, 30]);
        assert_eq!(calendar.arrival(Some(wall(990_000)), at(0), at(1_000_000)), at(989_970));
        // A turn whose readings were closer together knows better.
        turn(&mut calendar, 2_000_000, 0, [20, 30]);
        assert_eq!(calendar.arrival(Some(wall(1_990_000)), at(0), at(2_000_000)), at(1_989_980));
        turn(&mut calendar, 3_000_000, 0, [900, 30]);
        assert_eq!(calendar.arrival(Some(wall(2_990_000)), at(0), at(3_000_000)), at(2_989_980));
        assert_eq!(calendar.stamps, Stamps { kernel: 3, ..Stamps::default() });
    }

    #[test]
    fn what_has_no_stamp_arrived_by_the_turn_s_clock() {
        let mut calendar = Calendar::default();
        assert_eq!(calendar.arrival(Some(wall(5)), at(0), at(9)), at(9), "nothing is known of the calendar yet");
        turn(&mut calendar, 100, 0, [30, 30]);
        assert_eq!(calendar.arrival(None, at(0), at(100)), at(100));
        assert_eq!(calendar.stamps, Stamps { turn: 2, ..Stamps::default() });
    }

    #[test]
    fn no_arrival_is_later_than_its_turn_or_earlier_than_what_it_answers() {
        let mut calendar = Calendar::default();
        turn(&mut calendar, 1_000_000, 0, [30, 30]);
        assert_eq!(calendar.arrival(Some(wall(1_000_500)), at(0), at(1_000_000)), at(1_000_000));
        assert_eq!(calendar.arrival(Some(wall(500_000)), at(700_000), at(1_000_000)), at(700_000));
        assert_eq!(calendar.arrival(Some(WallTime::from_unix_ns(0)), at(0), at(1_000_000)), at(0));
        assert_eq!(calendar.stamps, Stamps { kernel: 3, clamped: 2, ..Stamps::default() });
    }

    #[test]
    fn a_step_of_the_calendar_is_told_from_a_long_gap() {
        // How far the calendar moves, the gaps behind the readings of that turn, and whether that is a step.
        let table: [(i64, [u64; 2], bool); 8] = [
            (0, [30, 30], false),
            (0, [5_000_000, 30], false),
            (0, [5_000_000, 5_000_000], false),
            (3_000_000, [30, 30], true),
            (3_000_000, [30, 1_000_000], true),
            (1_500, [30, 30], true),
            (-3_000_000, [30, 30], true),
            (-200, [30, 30], true),
        ];
        for (moved, gaps, is_step) in table {
            let mut calendar = Calendar::default();
            turn(&mut calendar, 1_000_000_000, 0, [30, 30]);
            turn(&mut calendar, 2_000_000_000, moved, gaps);
            assert_eq!(calendar.stamps.steps, u64::from(is_step), "{moved} {gaps:?}");
            let stamp = wall(1_999_000_000u64.wrapping_add_signed(moved));
            let arrived = calendar.arrival(Some(stamp), at(0), at(2_000_000_000));
            let expected = if is_step { 2_000_000_000 } else { 1_998_999_970 };
            assert_eq!(arrived, at(expected), "{moved} {gaps:?}");
            // From the next turn on stamps are good again.
            turn(&mut calendar, 3_000_000_000, moved, [30, 30]);
            let stamp = wall(2_999_000_000u64.wrapping_add_signed(moved));
            assert_eq!(calendar.arrival(Some(stamp), at(0), at(3_000_000_000)), at(2_998_999_970), "{moved} {gaps:?}");
            assert_eq!(calendar.stamps.steps, u64::from(is_step));
        }
    }

    #[test]
    fn a_beginning_in_a_long_gap_is_not_relied_on() {
        let mut calendar = Calendar::default();
        turn(&mut calendar, 1_000_000_000, 0, [5_000_000, 30]);
        turn(&mut calendar, 2_000_000_000, 0, [30, 5_000_000]);
        assert_eq!(calendar.arrival(Some(wall(1_999_000_000)), at(0), at(2_000_000_000)), at(1_998_999_970));
        let mut calendar = Calendar::default();
        turn(&mut calendar, 1_000_000_000, 0, [5_000_000, 5_000_000]);
        assert_eq!(calendar.arrival(Some(wall(999_000_000)), at(0), at(1_000_000_000)), at(1_000_000_000));
        turn(&mut calendar, 2_000_000_000, 0, [30, 30]);
        assert_eq!(calendar.arrival(Some(wall(1_999_000_000)), at(0), at(2_000_000_000)), at(1_998_999_970));
        assert_eq!(calendar.stamps.steps, 0);
    }
}
