//! What all benchmarks have in common: each is a name and a piece of work, which is either timed by criterion
//! (`cargo bench`) or counted (`tools/bench-check`).
//!
//! With `--names` a binary prints its benchmarks' names and does nothing. With `--count NAME TIMES` it does one
//! benchmark's work so many times and nothing else, so that callgrind can say how many instructions that took: two such runs
//! of different `TIMES` differ by the work alone, for what comes before and after is the same in both.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput};

/// Takes benchmarks, and does with them what the command line asks for.
pub struct Benches {
    mode: Mode,
}

enum Mode {
    Timed(Box<Criterion>),
    Named,
    Counted { name: String, times: u64 },
}

/// The `main` of a file of benchmarks.
pub fn main(groups: &[fn(&mut Benches)]) {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mode = match arguments.as_slice() {
        [option, ..] if option == "--names" => Mode::Named,
        [option, name, times, ..] if option == "--count" => {
            Mode::Counted { name: name.clone(), times: times.parse().expect("--count NAME TIMES: a whole number") }
        }
        _ => {
            let short = Criterion::default().warm_up_time(Duration::from_millis(300));
            Mode::Timed(Box::new(short.measurement_time(Duration::from_secs(1)).configure_from_args()))
        }
    };
    let mut benches = Benches { mode };
    groups.iter().for_each(|group| group(&mut benches));
    if let Mode::Timed(criterion) = &mut benches.mode {
        criterion.final_summary();
    }
}

impl Benches {
    /// One benchmark.
    pub fn run<O>(&mut self, group: &str, name: &str, work: impl FnMut() -> O) {
        self.run_over(group, name, None, work);
    }

    /// One benchmark whose work goes through so many octets.
    pub fn run_over<O>(&mut self, group: &str, name: &str, octets: Option<usize>, mut work: impl FnMut() -> O) {
        let whole = format!("{group}/{name}");
        match &mut self.mode {
            Mode::Timed(criterion) => {
                let mut group = criterion.benchmark_group(group);
                if let Some(octets) = octets {
                    group.throughput(Throughput::Bytes(octets as u64));
                }
                group.bench_function(name, |bencher| bencher.iter(&mut work));
                group.finish();
            }
            Mode::Named => println!("{whole}"),
            Mode::Counted { name, times } if *name == whole => {
                for _ in 0..*times {
                    black_box(work());
                }
            }
            Mode::Counted { .. } => {}
        }
    }
}
