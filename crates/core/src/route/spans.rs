//! What holds for which addresses, as an array of spans: a lookup is a binary search, however the prefixes are nested.
//!
//! A trie is walked bit by bit and pointer by pointer. Nothing is inserted here, so all longest matches are worked out
//! beforehand: between the ends of two neighbouring prefixes the match is the same for every address.

#![forbid(unsafe_code)]

/// Spans of addresses, from the lowest address to the highest.
#[derive(Debug)]
pub(super) struct Spans<Word, Value> {
    /// Where each begins; it ends where the next one does. The first begins at 0.
    starts: Vec<Word>,
    values: Vec<Value>,
}

impl<Word: Ord + Copy + Default, Value: PartialEq> Spans<Word, Value> {
    /// `ends`: where a prefix begins, and where addresses come that it no longer has. `value_of`: what holds for an address.
    pub(super) fn new(ends: impl IntoIterator<Item = Word>, value_of: impl Fn(Word) -> Value) -> Self {
        let mut ends: Vec<_> = ends.into_iter().chain([Word::default()]).collect();
        ends.sort_unstable();
        ends.dedup();
        let (mut starts, mut values) = (Vec::new(), Vec::new());
        for start in ends {
            let value = value_of(start);
            if values.last() != Some(&value) {
                starts.push(start);
                values.push(value);
            }
        }
        Self { starts, values }
    }

    /// What holds for an address.
    #[inline]
    pub(super) fn get(&self, addr: Word) -> &Value {
        // The first span has every address before the second.
        let after = self.starts.partition_point(|start| *start <= addr);
        &self.values[after.saturating_sub(1)]
    }
}
