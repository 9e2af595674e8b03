//! The elements of a set, for whoever asks about all packets at once.

#![forbid(unsafe_code)]

use super::element::Expiry;
use super::{Content, Kind, Set};
use crate::packet::Addr;
use std::sync::Arc;

/// One element of a set, as the text has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub addr: Addr,
    /// How many bits of `addr` count, from the left.
    pub addr_len: u8,
    pub proto: u8,
    /// Of ICMP type and code.
    pub port: u16,
    pub second: Addr,
    pub second_len: u8,
    pub iface: String,
    /// `iface` is how names of interfaces begin.
    pub is_beginning: bool,
    /// What it holds is not in the set.
    pub is_exception: bool,
}

/// What a set is made of.
#[derive(Debug)]
pub enum Members {
    /// The narrowest element that holds a packet decides: those with the longest prefix come first.
    Elements(Vec<Member>),
    /// list:set
    Sets(Vec<Arc<Set>>),
    /// Time, or packets that came before, decide what is in it.
    Changing,
}

impl Set {
    /// What is in it now.
    pub fn members(&self) -> Members {
        let elements = match &self.content {
            Content::Sets(sets) => {
                return Members::Sets(sets.read().iter().map(|(set, _)| Arc::clone(set)).collect());
            }
            Content::Elements(elements) => elements.read(),
        };
        let is_lasting =
            |e: &super::Element| matches!(e.expiry, Expiry::Never) && !e.is_learnt && e.mac.get().is_none();
        if !elements.values().flat_map(|of_len| of_len.values()).all(is_lasting) {
            return Members::Changing;
        }
        let mut members = Vec::new();
        for (len, of_len) in elements.iter().rev() {
            let mut of_len = of_len.iter().peekable();
            while let Some((key, element)) = of_len.next() {
                let is_net = self.kind.has_networks();
                let is_second = self.kind.network_is_second();
                members.push(Member {
                    addr: key.addr,
                    addr_len: if is_net && !is_second { *len } else { self.netmask },
                    proto: key.proto,
                    port: key.port,
                    second: key.second,
                    second_len: if is_net && is_second { *len } else { self.family.bits() },
                    iface: key.iface.text(),
                    is_beginning: element.wildcard,
                    is_exception: element.nomatch,
                });
                let is_last = of_len.peek().is_none_or(|(next, _)| next.addr != key.addr);
                if self.kind == Kind::NetIface && is_last {
                    members.push(behind_others(key.addr, *len));
                }
            }
        }
        Members::Elements(members)
    }
}

/// hash:net,iface: a network decides about all interfaces, those that no element of it names too.
fn behind_others(addr: Addr, addr_len: u8) -> Member {
    Member {
        addr,
        addr_len,
        proto: 0,
        port: 0,
        second: Addr::default(),
        second_len: 0,
        iface: String::new(),
        is_beginning: true,
        is_exception: true,
    }
}
