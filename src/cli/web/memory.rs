//! What pages are told: the news of the last minutes, and of some things how they are now.
//!
//! A page that is slow, or comes later, reads from where it is; nothing waits for it, and nothing is kept for it alone. What has
//! been forgotten meanwhile is counted.

use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tokio::sync::watch;

/// So many news are kept: some minutes of a lab's traffic, and what a page can show.
const MOST_NEWS: usize = 4000;
/// And so many bytes of them, since a packet's way may be long.
const MOST_BYTES: usize = 16 << 20;

/// Something that a page is told, as JSON.
#[derive(Debug)]
pub(super) struct News {
    /// Counted from 1; 0 if it is how something is now.
    pub(super) number: u64,
    pub(super) kind: &'static str,
    pub(super) text: String,
}

/// How far a page has read.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    news: u64,
    states: BTreeMap<&'static str, u64>,
}

impl Place {
    /// Behind the news of this number.
    pub(super) fn behind(number: u64) -> Self {
        Self { news: number, ..Self::default() }
    }
}

/// What a page has not read yet.
#[derive(Debug, Default)]
pub(super) struct Unread {
    /// News that it did not read in time.
    pub(super) lost: u64,
    pub(super) news: Vec<Arc<News>>,
}

#[derive(Debug)]
pub(super) struct Memory {
    kept: Mutex<Kept>,
    /// Counts what was told.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Kept {
    news: VecDeque<Arc<News>>,
    bytes: usize,
    /// The number of the last one.
    last: u64,
    /// How things are now, each with the number of its change.
    states: BTreeMap<&'static str, (u64, Arc<News>)>,
}

impl Memory {
    pub(super) fn new() -> Self {
        Self { kept: Mutex::default(), changed: watch::Sender::new(0) }
    }

    /// Tells something that happened.
    pub(super) fn tell(&self, kind: &'static str, text: String) {
        let mut kept = self.kept.lock();
        kept.last += 1;
        kept.bytes += text.len();
        let number = kept.last;
        kept.news.push_back(Arc::new(News { number, kind, text }));
        while kept.news.len() > MOST_NEWS || kept.bytes > MOST_BYTES {
            let Some(forgotten) = kept.news.pop_front() else { break };
            kept.bytes -= forgotten.text.len();
        }
        drop(kept);
        self.changed.send_modify(|count| *count += 1);
    }

    /// Tells how something is now, unless that was told already.
    pub(super) fn set(&self, kind: &'static str, text: String) {
        let mut kept = self.kept.lock();
        let before = kept.states.get(kind);
        if before.is_some_and(|(_, news)| news.text == text) {
            return;
        }
        let change = before.map_or(0, |(change, _)| *change) + 1;
        kept.states.insert(kind, (change, Arc::new(News { number: 0, kind, text })));
        drop(kept);
        self.changed.send_modify(|count| *count += 1);
    }

    /// Told whenever there is something new. As long as a page has it, it counts as one that looks on.
    pub(super) fn follow(&self) -> watch::Receiver<u64> {
        let mut receiver = self.changed.subscribe();
        // What is there already is new to who comes now.
        receiver.mark_changed();
        receiver
    }

    /// How many pages look on.
    pub(super) fn watchers(&self) -> usize {
        self.changed.receiver_count()
    }

    /// What is behind a place, which moves on. How things are comes first: it says what the news are about.
    pub(super) fn read(&self, place: &mut Place) -> Unread {
        let kept = self.kept.lock();
        let mut unread = Unread::default();
        for (kind, (change, news)) in &kept.states {
            if place.states.insert(kind, *change) != Some(*change) {
                unread.news.push(Arc::clone(news));
            }
        }
        let first = kept.last - kept.news.len() as u64 + 1;
        // A number from before this program began says nothing.
        let behind = if place.news > kept.last { 0 } else { place.news };
        // Who begins is told what is kept.
        unread.lost = if behind == 0 { 0 } else { first.saturating_sub(behind + 1) };
        let known = (behind + 1).saturating_sub(first) as usize;
        unread.news.extend(kept.news.iter().skip(known).cloned());
        place.news = kept.last;
        unread
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(memory: &Memory, place: &mut Place) -> (u64, Vec<String>) {
        let unread = memory.read(place);
        (unread.lost, unread.news.iter().map(|news| format!("{} {}", news.kind, news.text)).collect())
    }

    #[test]
    fn each_page_reads_from_its_own_place() {
        let memory = Memory::new();
        memory.tell("packet", "1".into());
        let (mut early, mut late) = (Place::default(), Place::behind(1));
        assert_eq!(read(&memory, &mut early), (0, vec!["packet 1".into()]));
        assert_eq!(read(&memory, &mut late), (0, vec![]));
        memory.tell("packet", "2".into());
        for place in [&mut early, &mut late] {
            assert_eq!(read(&memory, place), (0, vec!["packet 2".into()]));
            assert_eq!(read(&memory, place), (0, vec![]));
        }
    }

    #[test]
    fn how_things_are_is_told_once_and_when_it_changes() {
        let memory = Memory::new();
        let mut place = Place::default();
        memory.set("rules", "a".into());
        memory.set("rules", "b".into());
        assert_eq!(read(&memory, &mut place), (0, vec!["rules b".into()]));
        memory.set("rules", "b".into());
        assert_eq!(read(&memory, &mut place), (0, vec![]));
        memory.set("rules", "c".into());
        assert_eq!(read(&memory, &mut place), (0, vec!["rules c".into()]));
    }

    #[test]
    fn a_slow_page_costs_no_memory_and_is_told_how_much_it_lost() {
        let memory = Memory::new();
        let mut place = Place::default();
        memory.tell("packet", "first".into());
        memory.read(&mut place);
        for _ in 0..MOST_NEWS + 7 {
            memory.tell("packet", "later".into());
        }
        let unread = memory.read(&mut place);
        assert_eq!((unread.lost, unread.news.len()), (7, MOST_NEWS));
        memory.tell("packet", "x".repeat(MOST_BYTES));
        assert_eq!(memory.read(&mut Place::default()).news.len(), 1);
        // Who only comes now has lost nothing.
        assert_eq!(memory.read(&mut Place::default()).lost, 0);
    }
}
