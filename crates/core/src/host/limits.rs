//! How often a host is told of errors: `icmp_ratelimit`, `icmp_msgs_per_sec` and their kin, with Linux's numbers.

#![forbid(unsafe_code)]

use super::settings::Settings;
use crate::base::RejectWith;
use crate::base::time::{Duration, Instant};
use crate::config::RouterConfig;
use crate::icmp_reply::IcmpError;
use crate::packet::Packet;
use crate::packet::{Addr, Family};
use parking_lot::Mutex;
use std::collections::BTreeMap;

/// Errors that a host gets at once before the limit bites.
const BURST: u32 = 6;
/// `route/error_cost` and `route/error_burst`: about destinations without a route, in seconds.
const NO_ROUTE_COST: Duration = Duration::from_secs(1);
const NO_ROUTE_BURST: Duration = Duration::from_secs(5);
/// `route/redirect_load`: between the first two redirects to one host; each further one waits twice as long.
const REDIRECT_LOAD: Duration = Duration::from_millis(20);
/// `route/redirect_number`: a host that does not listen is told so often.
const MAX_REDIRECTS: u8 = 9;
/// `route/redirect_silence`: after that, it is told again.
const REDIRECT_SILENCE: Duration = Duration::from_millis(20 << 10);
/// Hosts remembered; who comes on top is not told of errors.
const MAX_PEERS: usize = 4096;
/// A peer's credit is full after that, so that it need not be remembered.
const FORGOTTEN: Duration = Duration::from_secs(60);
const FREQUENT_SWEEP: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Limits {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    peers: BTreeMap<Addr, Peer>,
    swept: Instant,
    /// Errors that may still be sent at `credited`; starts full.
    spent: f64,
    credited: Instant,
}

#[derive(Debug)]
struct Peer {
    credit: Duration,
    last: Instant,
    redirects: u8,
    last_redirect: Instant,
}

impl Peer {
    /// Earns credit for the time that passed, up to `most`, and spends `cost` if it is there.
    fn spend(&mut self, cost: Duration, most: Duration, now: Instant) -> bool {
        self.credit = (self.credit + now.saturating_since(self.last)).min(most);
        self.last = now;
        let enough = self.credit >= cost;
        if enough {
            self.credit -= cost;
        }
        enough
    }
}

impl State {
    fn peer(&mut self, addr: Addr, now: Instant) -> Option<&mut Peer> {
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&addr) {
            if now.saturating_since(self.swept) < FREQUENT_SWEEP {
                return None;
            }
            self.swept = now;
            self.peers.retain(|_, p| now.saturating_since(p.last) < FORGOTTEN);
            if self.peers.len() >= MAX_PEERS {
                return None;
            }
        }
        let fresh = Peer { credit: FORGOTTEN, last: now, redirects: 0, last_redirect: Instant::ZERO };
        Some(self.peers.entry(addr).or_insert(fresh))
    }

    /// `icmp_msgs_per_sec`: one bucket for all hosts.
    fn spend_global(&mut self, settings: &Settings, now: Instant) -> bool {
        let earned =
            now.saturating_since(self.credited).as_secs_f64() * f64::from(settings.icmp_msgs_per_sec);
        self.spent = (self.spent - earned).max(0.0);
        self.credited = now;
        let allowed = self.spent + 1.0 <= f64::from(settings.icmp_msgs_burst);
        if allowed {
            self.spent += 1.0;
        }
        allowed
    }
}

/// How often REJECT answers the hosts of a bridge, which has no routes to tell networks apart by.
#[derive(Debug)]
pub(crate) struct RejectLimits {
    limits: Limits,
    settings: Settings,
}

impl RejectLimits {
    pub(crate) fn new(config: &RouterConfig) -> Self {
        Self { limits: Limits::default(), settings: Settings::new(&config.sysctl, &config.ifaces) }
    }

    /// Whether the sender of `pkt` may be answered now; resets have no limit, as in Linux.
    pub(crate) fn allow(&self, with: RejectWith, pkt: &Packet, now: Instant) -> bool {
        /// The prefix that networks of IPv6 have.
        const PREFIX_LEN: u8 = 64;
        let RejectWith::Icmp(kind, code) = with else { return true };
        let to = (pkt.src(), pkt.family());
        self.limits.allow(&self.settings, IcmpError::new(kind, code), to, PREFIX_LEN, now)
    }
}

impl Limits {
    /// Whether `to`, behind a route of `prefix_len` bits, may be told of an error now.
    pub(super) fn allow(
        &self,
        settings: &Settings,
        error: IcmpError,
        (to, family): (Addr, Family),
        prefix_len: u8,
        now: Instant,
    ) -> bool {
        let interval = match family {
            Family::Ipv4 => {
                let masked = error.kind < 32 && settings.icmp_ratemask >> error.kind & 1 == 1;
                // Path MTU discovery must not wait.
                if !masked || (error.kind, error.code) == (3, 4) {
                    return true;
                }
                settings.icmp_ratelimit
            }
            Family::Ipv6 if error.kind == 2 => return true,
            // A wide route stands for many hosts.
            Family::Ipv6 => settings.icmpv6_ratelimit / (1 << ((128 - prefix_len.min(128)) >> 5)),
        };
        if interval.is_zero() {
            return true;
        }
        let mut state = self.state.lock();
        let allowed = state.peer(to, now).is_some_and(|peer| peer.spend(interval, interval * BURST, now));
        allowed && state.spend_global(settings, now)
    }

    /// Whether `to` may be told that it has no route (Linux counts this on top of [`Limits::allow`]).
    pub(super) fn allow_no_route(&self, to: Addr, now: Instant) -> bool {
        self.state.lock().peer(to, now).is_some_and(|peer| peer.spend(NO_ROUTE_COST, NO_ROUTE_BURST, now))
    }

    /// Whether `to` may be told of a better first hop now; told again and again, a host is believed to be deaf.
    pub(super) fn allow_redirect(&self, to: Addr, now: Instant) -> bool {
        let mut state = self.state.lock();
        let Some(peer) = state.peer(to, now) else { return false };
        let silence = now.saturating_since(peer.last_redirect);
        if silence > REDIRECT_SILENCE {
            peer.redirects = 0;
        }
        if peer.redirects >= MAX_REDIRECTS {
            peer.last_redirect = now;
            return false;
        }
        let allowed = peer.redirects == 0 || silence > REDIRECT_LOAD * (1 << peer.redirects);
        if allowed {
            peer.redirects += 1;
            peer.last_redirect = now;
        }
        allowed
    }
}
