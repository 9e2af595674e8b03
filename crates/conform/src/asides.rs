//! Frames about the link itself, which say when one of the two looked at a clock, and not what became of a packet.

#![forbid(unsafe_code)]

use super::kernel::Answer;
use super::subject::Ours;
use stateway_core::base::QueueReason;
use stateway_core::fate::{DropReason, Fate};
use stateway_core::packet::ETHERNET_LEN;

const ICMPV6: u8 = 58;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const REDIRECT: u8 = 137;
const IGMP: u8 = 2;
/// RFC 2710 and RFC 3810.
const LISTENER_REPORTS: [u8; 3] = [131, 132, 143];
const IPV6_LEN: usize = 40;
/// Options for every hop that are a router alert alone.
const ALERT_LEN: usize = 8;

/// Whether the kernel has said on its own account what it listens to: it does so after a time that it draws.
pub(super) fn is_report(frame: &[u8]) -> bool {
    let Some(packet) = frame.get(ETHERNET_LEN..) else { return false };
    match frame[..ETHERNET_LEN] {
        [0x33, 0x33, .., 0x86, 0xdd] => {
            packet.get(6) == Some(&0)
                && packet.get(IPV6_LEN + ALERT_LEN).is_some_and(|kind| LISTENER_REPORTS.contains(kind))
        }
        [1, 0, 0x5e, .., 8, 0] => packet.get(9) == Some(&IGMP),
        _ => false,
    }
}

/// Leaves out what one side alone has asked its neighbours: after whom it has asked already, and how long ago, nobody can
/// set in the kernel. So is that a host was told of too many destinations without a route, where time was skipped that this
/// limit of the kernel's has not seen.
///
/// This is about routers: a bridge asks nobody, and passes on what others ask.
pub(super) fn leave_out(theirs: &mut Answer, ours: &mut Ours, has_skipped: bool) {
    let (asked, asks) = (count(theirs.sent.iter().map(|s| &s.1)), count(ours.sent.iter().map(|s| &s.1)));
    if asked != asks {
        theirs.sent.retain(|(_, frame)| !is_question(frame));
        ours.sent.retain(|(_, frame, _)| !is_question(frame));
    }
    let is_about_no_route = ours.fate == Fate::Dropped(DropReason::NoRoute);
    if has_skipped && is_about_no_route && theirs.sent.is_empty() {
        ours.sent.clear();
    }
}

/// Whether the kernel remembers the frame besides its connection: that a host was told of a better way or of none, or that a
/// neighbour was asked.
pub(super) fn leaves_marks(ours: &Ours) -> bool {
    let is_redirect = |frame: &[u8]| {
        let packet = frame.get(ETHERNET_LEN..).unwrap_or_default();
        packet.get(6) == Some(&ICMPV6) && packet.get(IPV6_LEN) == Some(&REDIRECT)
    };
    let marks = ours.sent.iter().any(|(_, frame, _)| is_question(frame) || is_redirect(frame));
    marks || matches!(ours.fate, Fate::Queued(QueueReason::Neighbour) | Fate::Dropped(DropReason::NoRoute))
}

fn count<'a>(frames: impl Iterator<Item = &'a Vec<u8>>) -> usize {
    frames.filter(|frame| is_question(frame)).count()
}

/// Whether it asks for a link address (RFC 826, RFC 4861 §4.3).
pub(super) fn is_question(frame: &[u8]) -> bool {
    const ARP_REQUEST: [u8; 2] = [0, 1];
    let Some(packet) = frame.get(ETHERNET_LEN..) else { return false };
    match frame[12..ETHERNET_LEN] {
        [8, 6] => packet.get(6..8) == Some(&ARP_REQUEST),
        // One that was passed on has one hop less.
        [0x86, 0xdd] => {
            packet.get(6..8) == Some(&[ICMPV6, 255]) && packet.get(IPV6_LEN) == Some(&NEIGHBOUR_SOLICITATION)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(head: [u8; 14], packet: &[u8]) -> Vec<u8> {
        [&head[..], packet].concat()
    }

    #[test]
    fn questions_and_reports_are_told_apart() {
        const GROUP6: [u8; 14] = [0x33, 0x33, 0xff, 0, 0, 1, 2, 0, 0, 0, 1, 1, 0x86, 0xdd];
        let mut solicitation = vec![0x60; 64];
        (solicitation[6], solicitation[7], solicitation[40]) = (ICMPV6, 255, NEIGHBOUR_SOLICITATION);
        let mut report = vec![0x60; 72];
        (report[6], report[48]) = (0, 143);
        assert!(is_question(&frame(GROUP6, &solicitation)) && !is_report(&frame(GROUP6, &solicitation)));
        assert!(is_report(&frame(GROUP6, &report)) && !is_question(&frame(GROUP6, &report)));
        let mut igmp = vec![0x46; 32];
        igmp[9] = IGMP;
        assert!(is_report(&frame([1, 0, 0x5e, 0, 0, 22, 2, 0, 0, 0, 1, 1, 8, 0], &igmp)));
        let arp = [0, 1, 8, 0, 6, 4, 0, 1];
        assert!(is_question(&frame([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 1, 1, 8, 6], &arp)));
        solicitation[7] = 254;
        assert!(!is_question(&frame(GROUP6, &solicitation)), "passed on");
        assert!(!is_question(&[0; 13]) && !is_report(&[0; 13]));
    }
}
