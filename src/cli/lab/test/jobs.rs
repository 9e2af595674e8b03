//! Several labs at the same time, told of in the order in which they were named.
//!
//! ```text
//!   rows of jobs ──→ worker ──┐
//!        one after ─→ worker ──┼──→ words of every job ──→ told in order
//!        another  ──→ worker ──┘                           (what is not yet to be told waits)
//! ```
//!
//! Jobs that would make something of the same name on this machine are one row: a worker takes them one after another.

use super::super::{Voice, Words};
use super::take::Taken;
use crossbeam_channel::{Receiver, Sender, unbounded};
use stateway_lab::model::{Lab, RunnerKind};
use std::collections::{BTreeSet, VecDeque};
use std::num::NonZeroUsize;

/// One lab on one runner.
pub(super) struct Job<'a> {
    /// The name that reports have for the lab.
    pub(super) label: &'a str,
    /// The lab under the name that it has on this machine.
    pub(super) lab: &'a Lab,
    pub(super) kind: RunnerKind,
}

/// What is heard of a job.
pub(super) enum Heard {
    Words(Words),
    /// It has ended.
    Taken(Box<Taken>),
}

/// As many jobs at the same time as pays: a simulated lab computes, a real one waits for most of its time.
pub(super) fn usual(kinds: &[RunnerKind]) -> usize {
    /// Measured on two processors: more only wait for each other.
    const REAL_FOR_EACH_PROCESSOR: usize = 2;
    let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let computes = kinds.iter().all(|kind| *kind == RunnerKind::Sim);
    if computes { processors } else { processors * REAL_FOR_EACH_PROCESSOR }
}

/// Takes every job, `at_once` of them at the same time. Whatever the order in which they end, `hear` is told of them as if
/// each had begun when the one before it had ended.
pub(super) fn take_all(
    jobs: &[Job<'_>],
    at_once: usize,
    take: impl Fn(&Job<'_>, Voice<'_>) -> Taken + Sync,
    hear: impl FnMut(&Job<'_>, Heard),
) {
    let rows = rows(jobs);
    let workers = at_once.min(rows.len());
    let (sender, heard) = unbounded();
    let (put, waiting) = unbounded();
    for row in rows {
        // The other end is held below.
        drop(put.send(row));
    }
    drop(put);
    let take = &take;
    std::thread::scope(|scope| {
        for _ in 0..workers {
            let (sender, waiting) = (sender.clone(), waiting.clone());
            scope.spawn(move || work(jobs, &waiting, take, &sender));
        }
        drop(sender);
        in_order(jobs, &heard, hear);
    });
}

fn work(
    jobs: &[Job<'_>],
    waiting: &Receiver<Vec<usize>>,
    take: &(impl Fn(&Job<'_>, Voice<'_>) -> Taken + Sync),
    sender: &Sender<(usize, Heard)>,
) {
    for number in waiting.iter().flatten() {
        // Who hears it lives longer than we.
        let tell = |heard| drop(sender.send((number, heard)));
        let taken = take(&jobs[number], &|words| tell(Heard::Words(words)));
        tell(Heard::Taken(Box::new(taken)));
    }
}

/// Hands on what is heard in the order of the jobs. What the first of them says is handed on as it comes.
fn in_order(jobs: &[Job<'_>], heard: &Receiver<(usize, Heard)>, mut hear: impl FnMut(&Job<'_>, Heard)) {
    let mut waiting: Vec<VecDeque<Heard>> = jobs.iter().map(|_| VecDeque::new()).collect();
    let mut front = 0;
    for (number, told) in heard {
        // How far a job has come is of no interest any more when its turn comes.
        if number == front || !matches!(told, Heard::Words(Words::Progress(_))) {
            waiting[number].push_back(told);
        }
        while let Some(told) = waiting.get_mut(front).and_then(VecDeque::pop_front) {
            let is_over = matches!(told, Heard::Taken(_));
            hear(&jobs[front], told);
            front += usize::from(is_over);
        }
    }
}

/// The numbers of the jobs in rows, each to be taken from its front to its end.
fn rows(jobs: &[Job<'_>]) -> Vec<Vec<usize>> {
    let mut rows: Vec<(BTreeSet<String>, Vec<usize>)> = Vec::new();
    for (number, job) in jobs.iter().enumerate() {
        let mut names = names(job);
        let mut row = Vec::new();
        // It may be what joins two rows.
        rows.retain_mut(|(others, numbers)| {
            let apart = others.is_disjoint(&names);
            if !apart {
                names.append(others);
                row.append(numbers);
            }
            apart
        });
        row.push(number);
        row.sort_unstable();
        rows.push((names, row));
    }
    let mut rows: Vec<Vec<usize>> = rows.into_iter().map(|(_, row)| row).collect();
    rows.sort();
    rows
}

/// The names that a job gives to what it makes on this machine. Two labs may come to the same: `a-b` has a host `c`, and `a`
/// a host `b-c`.
fn names(job: &Job<'_>) -> BTreeSet<String> {
    let mut names = BTreeSet::from([job.lab.name.clone()]);
    #[cfg(target_os = "linux")]
    if job.kind != RunnerKind::Sim {
        names.extend(stateway_lab::netns::state::netns_names(job.lab));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use stateway_lab::resolve::load_text;
    use std::path::Path;
    use std::sync::Barrier;

    fn lab(name: &str, host: &str) -> Lab {
        let text = format!(
            "name: {name}\nrouter:\n  ports: {{ a: {{}} }}\n  rules: |\n    *filter\n    COMMIT\n\
             hosts:\n  {host}: {{ port: a, address: 192.0.2.1/24 }}\n"
        );
        load_text(&text, Path::new("lab.yaml")).unwrap()
    }

    #[test]
    fn what_would_make_the_same_names_is_one_row() {
        let labs = [lab("a", "b-c"), lab("other", "a"), lab("a-b", "c"), lab("a", "x")];
        let on = |kind| labs.iter().map(move |lab| Job { label: &lab.name, lab, kind }).collect::<Vec<_>>();
        assert_eq!(rows(&on(RunnerKind::Live)), [vec![0, 2, 3], vec![1]]);
        assert_eq!(rows(&on(RunnerKind::Sim)), [vec![0, 3], vec![1], vec![2]]);
    }

    #[test]
    fn jobs_that_end_backwards_are_told_of_forwards() {
        let labs = [lab("a", "h"), lab("b", "h"), lab("c", "h")];
        let jobs: Vec<Job> =
            labs.iter().map(|lab| Job { label: &lab.name, lab, kind: RunnerKind::Live }).collect();
        // Each ends only when the one behind it has.
        let ended = [Barrier::new(2), Barrier::new(2), Barrier::new(1)];
        let mut told = Vec::new();
        take_all(
            &jobs,
            3,
            |job, voice| {
                let number = labs.iter().position(|lab| lab.name == job.lab.name).unwrap();
                voice(Words::Said(format!("{} begins", job.lab.name)));
                ended[number].wait();
                voice(Words::Told(format!("{} ends", job.lab.name)));
                if let Some(before) = number.checked_sub(1) {
                    ended[before].wait();
                }
                Taken::default()
            },
            |job, heard| {
                told.push(match heard {
                    Heard::Words(
                        Words::Said(text) | Words::Painted(text) | Words::Told(text) | Words::Progress(text),
                    ) => text,
                    Heard::Taken(_) => format!("{} has ended", job.lab.name),
                });
            },
        );
        let want =
            ["a", "b", "c"].map(|name| ["begins", "ends", "has ended"].map(|what| format!("{name} {what}")));
        assert_eq!(told, want.concat());
    }
}
