//! The client's ends of one shard's connections, as a worker sees them.

use std::collections::{BTreeSet, VecDeque};

use timecop::job::link::Links;
use timecop::outgoing::Outgoing;
use timecop::time::Instant;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Free,
    InLine,
    Dialing,
    Open,
    Closing,
}

/// How far TLS has come on a connection, from the client's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tls {
    None,
    /// The worker wants it, and nothing of it has left yet.
    Wanted,
    Handshaking,
    Ready,
}

pub(super) struct End {
    pub stage: Stage,
    pub tls: Tls,
    pub connection: usize,
    pub out: Outgoing,
    pub is_touched: bool,
    pub redial: bool,
    pub deadline: Instant,
}

/// The client's ends of one shard's connections.
pub struct Ends {
    pub(super) ends: Vec<End>,
    pub(super) timers: BTreeSet<(Instant, u32)>,
    pub(super) in_line: VecDeque<u32>,
    pub(super) touched: Vec<u32>,
    /// Slots that were closed since the last look, and whether they were still dialling.
    pub(super) closed: Vec<(u32, bool)>,
    pub(super) dialing: usize,
}

impl Ends {
    pub(super) fn new(slots: u32) -> Ends {
        let end = |_| End {
            stage: Stage::Free,
            tls: Tls::None,
            connection: usize::MAX,
            out: Outgoing::new(),
            is_touched: false,
            redial: false,
            deadline: Instant::NEVER,
        };
        let ends = (0..slots).map(end).collect();
        let (timers, in_line, touched, closed) = Default::default();
        Ends { ends, timers, in_line, touched, closed, dialing: 0 }
    }

    pub(super) fn touch(&mut self, slot: u32) {
        if !std::mem::replace(&mut self.ends[slot as usize].is_touched, true) {
            self.touched.push(slot);
        }
    }

    pub(super) fn set_deadline(&mut self, slot: u32, at: Instant) {
        let before = std::mem::replace(&mut self.ends[slot as usize].deadline, at);
        self.timers.remove(&(before, slot));
        if at < Instant::NEVER {
            self.timers.insert((at, slot));
        }
    }

    pub(super) fn leads(&self, slot: u32, connection: usize, stage: Stage) -> bool {
        let end = &self.ends[slot as usize];
        end.connection == connection && end.stage == stage
    }
}

impl Links for Ends {
    fn dial(&mut self, slot: u32) {
        let end = &mut self.ends[slot as usize];
        match end.stage {
            Stage::Free => {
                end.stage = Stage::InLine;
                self.in_line.push_back(slot);
            }
            Stage::Closing => end.redial = true,
            stage => panic!("slot {slot} is dialled while it is {stage:?}"),
        }
    }

    fn outgoing(&mut self, slot: u32) -> &mut Outgoing {
        assert_eq!(self.ends[slot as usize].stage, Stage::Open, "slot {slot} writes without a connection");
        self.touch(slot);
        &mut self.ends[slot as usize].out
    }

    fn close(&mut self, slot: u32) {
        self.set_deadline(slot, Instant::NEVER);
        let end = &mut self.ends[slot as usize];
        end.out.clear();
        match end.stage {
            Stage::Free => {}
            Stage::Closing => end.redial = false,
            Stage::InLine => end.stage = Stage::Free,
            Stage::Dialing | Stage::Open => {
                let was_dialing = end.stage == Stage::Dialing;
                end.stage = Stage::Closing;
                self.dialing -= usize::from(was_dialing);
                self.closed.push((slot, was_dialing));
            }
        }
    }

    fn start_tls(&mut self, slot: u32) {
        let end = &mut self.ends[slot as usize];
        assert_eq!((end.stage, end.tls), (Stage::Open, Tls::None), "slot {slot} begins TLS out of turn");
        end.tls = Tls::Wanted;
        self.touch(slot);
    }

    fn deadline(&mut self, slot: u32, at: Instant) {
        self.set_deadline(slot, at);
    }
}
