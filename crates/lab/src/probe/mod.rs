//! Small clients and servers that this program is itself, inside a namespace: exact where others only guess.
//!
//! `refused`, `blocked` and `unreachable` look alike to most programs. A probe has a raw ICMP socket open beside its
//! own, so that it can tell which error came back. It prints one [`Finding`] as a line of JSON.

#![forbid(unsafe_code)]

mod client;
mod icmp;
mod serve;
mod tftp;

pub use client::{hold, pipe, ready, send, tcp, udp};
pub use serve::serve;

use super::model::Word;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::time::Duration;

/// What a probe is to do.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub addr: IpAddr,
    pub port: u16,
    pub source: Option<IpAddr>,
    pub source_port: Option<u16>,
    pub timeout: Duration,
}

/// What a probe found out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// `ok`, `blocked`, `refused`, `unreachable`, `failed`.
    pub result: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<String>,
    pub note: String,
    #[serde(default)]
    pub stdout: String,
    /// The exit code of a command of the user's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
}

impl Finding {
    pub(crate) fn new(result: Word, note: impl Into<String>) -> Self {
        Self { result: result.text().to_owned(), note: note.into(), ..Self::default() }
    }

    /// The result as a word; what is not known counts as nothing having come back.
    pub fn word(&self) -> Word {
        [Word::Ok, Word::Refused, Word::Unreachable, Word::Failed]
            .into_iter()
            .find(|word| word.text() == self.result)
            .unwrap_or(Word::Blocked)
    }
}
