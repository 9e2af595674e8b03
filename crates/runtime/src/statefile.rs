//! The state file: what a router knew, written down so that the next process goes on with it.
//!
//! ```text
//!   magic · version · when it was saved · length and CRC-32C of the body · CRC-32C of this head     44 bytes
//!   body: items one behind the other, each a record of postcard
//! ```
//!
//! A file is read whole or not at all: one that is cut short, damaged, of another version or no state file is refused
//! with the reason. Reading and writing here is from and to memory; whoever owns the file is elsewhere.

#![forbid(unsafe_code)]

use core::iter::from_fn;
use crc32c::{crc32c, crc32c_append};
use serde::{Deserialize, Serialize};
use stateway_core::conntrack::Conntrack;
use stateway_core::conntrack::saved::{Restored, SavedConnection, SavedExpectation};
use stateway_core::router::Router;
use stateway_core::saved::SavedLink;
use stateway_core::time::{Duration, Instant};
use std::io::{self, Seek, SeekFrom, Write};
use thiserror::Error;

const MAGIC: [u8; 8] = *b"stateway";
/// Another number for every change of what a record means.
const VERSION: u32 = 2;
/// Of the head, without the CRC at its end.
const HEAD: usize = 40;
const BODY_AT: usize = HEAD + 4;
/// A million connections take some 100 MB.
pub const MAX_BYTES: usize = 1 << 30;
/// What is gathered before it is written.
const PIECE: usize = 256 << 10;

/// Why a file was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StateError {
    #[error("it is no state file")]
    Magic,
    #[error("it is of version {0}, and this program reads version {VERSION}")]
    Version(u32),
    #[error("it is cut short: {found} bytes of {wanted}")]
    Short { found: usize, wanted: u64 },
    #[error("it is damaged: its checksum differs")]
    Checksum,
    #[error("item {0} makes no sense")]
    Item(usize),
}

/// One thing that was known.
#[derive(Debug, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant, reason = "nearly all are of the largest kind, and one is made at a time")]
enum Item {
    Connection(SavedConnection),
    Expectation(SavedExpectation),
    Link(SavedLink),
}

/// A file that was found good.
#[derive(Debug)]
pub struct State<B> {
    /// In nanoseconds since 1970.
    saved_at: u64,
    oldest: Duration,
    file: B,
}

/// What was taken up again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub restored: Restored,
    /// Stations or neighbours.
    pub links: usize,
    /// Since the file was written.
    pub passed: Duration,
}

impl<B: AsRef<[u8]>> State<B> {
    /// Checks all of a file.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn parse(file: B) -> Result<Self, StateError> {
        let bytes = file.as_ref();
        let (head, saved_at) = head(bytes)?;
        let body = &bytes[BODY_AT..];
        if body.len() as u64 != head.len {
            return Err(StateError::Short {
                found: bytes.len(),
                wanted: head.len.saturating_add(BODY_AT as u64),
            });
        }
        if crc32c(body) != head.crc {
            return Err(StateError::Checksum);
        }
        let mut oldest = Duration::ZERO;
        let mut rest = body;
        for number in 1.. {
            if rest.is_empty() {
                break;
            }
            let (item, behind) = postcard::take_from_bytes(rest).map_err(|_| StateError::Item(number))?;
            if let Item::Connection(connection) = &item {
                if !connection.is_sound() {
                    return Err(StateError::Item(number));
                }
                oldest = oldest.max(connection.age());
            }
            rest = behind;
        }
        Ok(Self { saved_at, oldest, file })
    }

    /// How much time has passed since, by the time of day; none if that was set back.
    pub const fn passed(&self, unix_nanos: u64) -> Duration {
        Duration::from_nanos(unix_nanos.saturating_sub(self.saved_at))
    }

    /// The age of its oldest connection when it was written.
    pub const fn oldest(&self) -> Duration {
        self.oldest
    }

    /// Takes everything up again, before the first packet comes.
    pub fn restore(&self, router: &Router, passed: Duration, now: Instant) -> Summary {
        let conntrack = router.conntrack();
        let (mut expectations, mut links) = (Vec::new(), 0);
        let connections = self.items().filter_map(|item| match item {
            Item::Connection(connection) => Some(connection),
            Item::Expectation(expectation) => {
                expectations.push(expectation);
                None
            }
            Item::Link(link) => {
                links += usize::from(router.restore_link(&link, now));
                None
            }
        });
        let mut restored = conntrack.restore(connections, passed, now);
        // What the router's addresses were may have changed meanwhile.
        let ended = router.end_stale_masquerades(now);
        restored.connections -= ended;
        restored.refused += ended;
        // Behind the connections that they belong to.
        restored += conntrack.restore_expectations(expectations.into_iter(), passed, now);
        Summary { restored, links, passed }
    }

    fn items(&self) -> impl Iterator<Item = Item> {
        let mut rest = self.file.as_ref().get(BODY_AT..).unwrap_or_default();
        from_fn(move || {
            let (item, behind) = postcard::take_from_bytes(rest).ok()?;
            rest = behind;
            Some(item)
        })
    }
}

struct Head {
    len: u64,
    crc: u32,
}

fn head(bytes: &[u8]) -> Result<(Head, u64), StateError> {
    if !bytes.starts_with(&MAGIC) {
        return Err(StateError::Magic);
    }
    let Some(head) = bytes.get(..BODY_AT) else {
        return Err(StateError::Short { found: bytes.len(), wanted: BODY_AT as u64 });
    };
    let four = |at: usize| u32::from_le_bytes(core::array::from_fn(|n| head[at + n]));
    let eight = |at: usize| u64::from(four(at)) | u64::from(four(at + 4)) << 32;
    // The version first: another one may have another head.
    if four(8) != VERSION {
        return Err(StateError::Version(four(8)));
    }
    if crc32c(&head[..HEAD]) != four(HEAD) {
        return Err(StateError::Checksum);
    }
    Ok((Head { len: eight(24), crc: four(32) }, eight(16)))
}

/// Writes everything that `router` knows to `file`, which is empty. Returns how many connections that were.
///
/// # Errors
/// `file` cannot be written.
pub fn write<F: Write + Seek>(
    file: &mut F,
    router: &Router,
    now: Instant,
    unix_nanos: u64,
) -> io::Result<usize> {
    file.write_all(&[0; BODY_AT])?;
    let mut body = Body { file, piece: Vec::with_capacity(PIECE + 1024), len: 0, crc: 0, result: Ok(()) };
    let conntrack: &Conntrack = router.conntrack();
    let mut connections = 0;
    conntrack.save(now, |connection| {
        connections += 1;
        body.put(&Item::Connection(connection));
    });
    conntrack.save_expectations(now).into_iter().for_each(|e| body.put(&Item::Expectation(e)));
    router.save_links(now).into_iter().for_each(|link| body.put(&Item::Link(link)));
    let (len, crc) = body.end()?;
    let mut head = Vec::with_capacity(BODY_AT);
    head.extend(MAGIC);
    head.extend(VERSION.to_le_bytes());
    head.extend([0; 4]);
    head.extend(unix_nanos.to_le_bytes());
    head.extend(len.to_le_bytes());
    head.extend(crc.to_le_bytes());
    head.extend([0; 4]);
    head.extend(crc32c(&head).to_le_bytes());
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&head)?;
    Ok(connections)
}

/// The body, as far as it is written.
struct Body<'a, F> {
    file: &'a mut F,
    piece: Vec<u8>,
    len: u64,
    crc: u32,
    /// The first error: what comes behind it is not written.
    result: io::Result<()>,
}

impl<F: Write> Body<'_, F> {
    fn put(&mut self, item: &Item) {
        if self.result.is_err() {
            return;
        }
        self.result = postcard::to_io(item, &mut self.piece).map(drop).map_err(io::Error::other);
        if self.piece.len() >= PIECE {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.result.is_ok() {
            self.crc = crc32c_append(self.crc, &self.piece);
            self.len += self.piece.len() as u64;
            self.result = self.file.write_all(&self.piece);
        }
        self.piece.clear();
    }

    fn end(mut self) -> io::Result<(u64, u32)> {
        self.flush();
        self.result.map(|()| (self.len, self.crc))
    }
}

#[cfg(test)]
mod tests;
