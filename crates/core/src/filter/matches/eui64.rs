//! `-m eui64`: whether an IPv6 address was made from the sender's link address (RFC 4291, appendix A).

#![forbid(unsafe_code)]

use super::{Answer, Matcher, Setting, Spec, View};
use crate::filter::text::options::{Options, Problem};
use crate::packet::Family;
use core::fmt;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eui64;

impl Matcher for Eui64 {
    const SPEC: Spec = Spec { name: "eui64", family: Some(Family::Ipv6), protos: &[], options: &[] };

    fn build(_: &Options<'_>, _: &Setting) -> Result<Self, Problem> {
        Ok(Self)
    }

    fn check(&self, view: &View<'_>) -> Answer {
        let mac = view.pkt.src_mac();
        let (vendor, device) = mac.0.split_at(3);
        let mut identifier = [vendor, &[0xff, 0xfe], device].concat();
        // The bit for addresses that somebody chose is turned round.
        identifier[0] ^= 0x02;
        (view.pkt.src().v6()[8..] == identifier).into()
    }
}

impl fmt::Display for Eui64 {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}
