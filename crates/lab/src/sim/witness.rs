//! Who is told of every packet that the router decides on, as it happens.
//!
//! A witness hears what the recorder noted and looks at the router as it stands then. It changes nothing: what listens does not
//! decide.

#![forbid(unsafe_code)]

use super::Sim;
use crate::model::{HostId, Lab};
use crate::runner::Seen;
use core::fmt;
use stateway_core::iface::IfaceId;
use stateway_core::packet::Mac;
use stateway_core::router::Router;
use stateway_core::time::Instant;
use stateway_trace::explain::Met;

/// A packet that has just met its fate.
#[derive(Debug)]
pub struct Passage<'a> {
    pub now: Instant,
    /// The path of the step that was under way: `tests[2].steps[0]`.
    pub step: &'a str,
    pub seen: &'a Seen,
    /// The frame as it came, and what the router made of it.
    pub met: Met<'a>,
    /// The host that sent it.
    pub sender: Option<HostId>,
    /// The hosts that it goes to, if it was forwarded.
    pub receivers: Vec<HostId>,
    pub router: &'a Router,
}

/// What is called for every packet.
pub type Tell = Box<dyn FnMut(&Passage<'_>) + Send>;

/// A witness, if there is one.
#[derive(Default)]
pub(super) struct Witness(pub(super) Option<Tell>);

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Witness" } else { "none" })
    }
}

impl Sim {
    /// Has every packet from now on told to `tell`, once the router has decided on it.
    pub fn witness(&mut self, tell: Tell) {
        self.witness = Witness(Some(tell));
    }
}

/// The host behind a port that has this link address.
pub(super) fn host_of(lab: &Lab, iface: IfaceId, mac: Mac) -> Option<HostId> {
    let at = lab.hosts.iter().position(|host| host.iface == iface && host.mac == mac)?;
    Some(HostId(at as u16))
}
