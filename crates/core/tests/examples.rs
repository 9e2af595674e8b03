//! The examples say what they are meant to say.

use expect_test::expect;

#[path = "../examples/embed.rs"]
#[expect(dead_code, reason = "its `main` is for people")]
mod embed;

#[path = "../examples/tun_filter.rs"]
#[expect(dead_code, reason = "its `main` is for people")]
mod tun_filter;

#[test]
fn a_bridge_in_memory_says_what_became_of_each_packet_and_why() {
    expect![[r"
        # the server speaks first
        wan: NEW dropped by policy: no rule decided, and the policy of the chain stopped it
        # the client asks
        lan: NEW forwarded by filter/FORWARD/2, to wan
        # the server answers
        wan: ESTABLISHED forwarded by filter/FORWARD/1, to lan
        # the client asks for what it may not have
        lan: NEW rejected by filter/FORWARD/3: a rule stopped it; 70 bytes to lan
        1 connection; 2 frames left by lan, 1 by wan
    "]]
    .assert_eq(&embed::story().expect("its rules are right"));
}

#[test]
fn a_vpn_filters_the_packets_of_its_tun() {
    expect![[r"
        the peer connects to SSH here: dropped
        the peer pings: forwarded, 28 bytes
        this machine answers: forwarded, 28 bytes
        this machine connects to HTTPS there: forwarded, 40 bytes
        this machine connects to SMTP there: rejected, 40 bytes back
    "]]
    .assert_eq(&tun_filter::story().expect("its rules are right"));
}
