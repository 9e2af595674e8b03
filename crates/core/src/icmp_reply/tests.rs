use super::*;
use crate::packet::{Mac, Offload};

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn frame(l3: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 1, 1, 2, 0, 0, 0, 1, 2];
    frame.extend(if l3[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] });
    frame.extend(l3);
    frame
}

/// What is answered to an IP packet, in the name of `src`.
fn refuse_l3(with: RejectWith, l3: &[u8], author: Author) -> Option<Vec<u8>> {
    let mut frame = frame(l3);
    let pkt = Packet::parse(&mut frame, Offload::NONE).unwrap();
    deserves(with, &pkt).then(|| refuse(with, &pkt, author)[ETHERNET_LEN..].to_vec())
}

/// The source and the identification that an expected answer has.
fn author_of(answer: &[u8]) -> Author {
    if answer[0] >> 4 == 4 {
        let src = Addr::from_v4([answer[12], answer[13], answer[14], answer[15]]);
        Author { src, ident: u16::from_be_bytes([answer[4], answer[5]]) }
    } else {
        Author { src: Addr::from_v6(answer[8..24].try_into().unwrap()), ident: 0 }
    }
}

/// Packets as they were at FORWARD, and what the kernel answered (Linux 6.18).
#[test]
fn every_byte_of_an_answer_is_as_the_kernel_writes_it() {
    #[rustfmt::skip]
    let cases = [

("a UDP datagram", RejectWith::Icmp(3, 13), "4500001d000140003f113dbbcb007109c000020a0035138800098d0a61", "45c0003912090000400101bdc6336401cb007109030dfb21000000004500001d000140003f113dbbcb007109c000020a0035138800098d0a61"),
        ("an echo request", RejectWith::Icmp(3, 13), "45000020000140003f014f94c633640ac000020a080019270007000170696e67", "45c0003cb208000040017386c6336401c633640a030dfcf20000000045000020000140003f014f94c633640ac000020a080019270007000170696e67"),
        ("net unreachable", RejectWith::Icmp(3, 0), "4500001d000140003f114f87c000020ac633640a1388003500098ed671", "45c0003972bc00004001833cc0000201c000020a0300e962000000004500001d000140003f114f87c000020ac633640a1388003500098ed671"),
        ("a SYN, by an ICMP error", RejectWith::Icmp(3, 3), "45000028000140003f064f87c000020ac633640a0001000200000000000000005002ffffc3970000", "45c0004472e300004001830ac0000201c000020a0303e95f0000000045000028000140003f064f87c000020ac633640a0001000200000000000000005002ffffc3970000"),
        ("UDP without a checksum", RejectWith::Icmp(3, 3), "4500001d000140003f114f87c000020ac633640a000100020009000078", "45c0003972e4000040018314c0000201c000020a030384f0000000004500001d000140003f114f87c000020ac633640a000100020009000078"),
        ("an echo reply nobody asked for", RejectWith::Icmp(3, 3), "45000020000140003f014f94c000020ac633640a0000212d0001000170696e67", "45c0003c72e600004001830fc0000201c000020a0303fcfc0000000045000020000140003f014f94c000020ac633640a0000212d0001000170696e67"),
        ("a timestamp request", RejectWith::Icmp(3, 3), "4500001c000140003f014f98c000020ac633640a0d00f2ff00000000", "45c0003872e7000040018312c0000201c000020a0303fcfc000000004500001c000140003f014f98c000020ac633640a0d00f2ff00000000"),
        ("ESP", RejectWith::Icmp(3, 3), "45000024000140003f324f5fc000020ac633640a78787878787878787878787878787878", "45c0004072e8000040018309c0000201c000020a030339390000000045000024000140003f324f5fc000020ac633640a78787878787878787878787878787878"),
        ("part of the type of service is taken over", RejectWith::Icmp(3, 3), "45b8001d000140003f114ecfc000020ac633640a0001000300099b8f78", "45d8003972ea0000400182f6c0000201c000020a0303e95f0000000045b8001d000140003f114ecfc000020ac633640a0001000300099b8f78"),
        ("RST: SYN", RejectWith::TcpReset, "450000280001400040064e87c000020ac633640a03e8005000000064000000c85002ffffbe360000", "450000280000400040064e88c633640ac000020a005003e8000000000000006550140000beeb0000"),
        ("RST: SYN+ACK", RejectWith::TcpReset, "450000280001400040064e87c000020ac633640a03e8005000000064000000c85012ffffbe260000", "450000280000400040064e88c633640ac000020a005003e8000000c80000000050040000be980000"),
        ("RST: data", RejectWith::TcpReset, "4500002b0001400040064e84c000020ac633640a03e8005000000064000000c85018fffff9ba0000616263", "450000280000400040064e88c633640ac000020a005003e8000000c80000000050040000be980000"),
        ("RST: no flags at all", RejectWith::TcpReset, "450000280001400040064e87c000020ac633640a03e8005000000064000000c85000ffffbe380000", "450000280000400040064e88c633640ac000020a005003e8000000000000006450140000beec0000"),
        ("RST: SYN+FIN", RejectWith::TcpReset, "450000280001400040064e87c000020ac633640a03e8005000000064000000c85003ffffbe350000", "450000280000400040064e88c633640ac000020a005003e8000000000000006650140000beea0000"),
        ("RST: SYN with data", RejectWith::TcpReset, "4500002b0001400040064e84c000020ac633640a03e8005000000064000000c85002fffff9d00000616263", "450000280000400040064e88c633640ac000020a005003e8000000000000006850140000bee80000"),
        ("GRE", RejectWith::Icmp(3, 13), "45000024000140003f2f4f62c633640ac000020a3001880b0004004d0000000164617461", "45c00040b541000040017049c6336401c633640a030d6bd10000000045000024000140003f2f4f62c633640ac000020a3001880b0004004d0000000164617461"),
        ("ICMPv6: UDP without a checksum", RejectWith::Icmp(1, 4), "600000000009113f20010db800010000000000000000001020010db8000200000000000000000010010101010009000061", "6000000000393a4020010db800010000000000000000000120010db80001000000000000000000100104731a00000000600000000009113f20010db800010000000000000000001020010db8000200000000000000000010010101010009000061"),
        ("ICMPv6: SCTP", RejectWith::Icmp(1, 4), "600000000008843f20010db800010000000000000000001020010db80002000000000000000000103132333435363738", "6000000000383a4020010db800010000000000000000000120010db80001000000000000000000100104925200000000600000000008843f20010db800010000000000000000001020010db80002000000000000000000103132333435363738"),
    ];
    for (name, with, packet, answer) in cases {
        let answer = bytes(answer);
        let got = refuse_l3(with, &bytes(packet), author_of(&answer));
        assert_eq!(got.as_deref(), Some(&*answer), "{name}");
    }
}

/// IPv4 from 192.0.2.10 to 198.51.100.10, with a header checksum.
fn ipv4(proto: u8, fragment: u16, l4: &[u8]) -> Vec<u8> {
    let mut l3 = vec![0x45, 0];
    l3.extend((20 + l4.len() as u16).to_be_bytes());
    l3.extend([0, 1]);
    l3.extend(fragment.to_be_bytes());
    l3.extend([64, proto, 0, 0, 192, 0, 2, 10, 198, 51, 100, 10]);
    let checksum = Sum::ZERO.bytes(&l3).checksum().to_be_bytes();
    l3[10..12].copy_from_slice(&checksum);
    l3.extend(l4);
    l3
}

fn icmp(kind: u8) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0, 7, 0, 1];
    let checksum = Sum::ZERO.bytes(&message).checksum().to_be_bytes();
    message[2..4].copy_from_slice(&checksum);
    message
}

#[test]
fn some_packets_are_not_answered() {
    const PORT_UNREACHABLE: RejectWith = RejectWith::Icmp(3, 3);
    let unchecked_udp = [0x13, 0x88, 0, 53, 0, 9, 0, 0, 0x71];
    let bad_udp = [0x13, 0x88, 0, 53, 0, 9, 0x12, 0x34, 0x71];
    let reset = bytes("450000280001400040064e87c000020ac633640a03e8005000000064000000c85004ffffbe340000");
    let cases = [
        ("a sound datagram is", PORT_UNREACHABLE, ipv4(17, 0, &unchecked_udp), true),
        ("a bad checksum", PORT_UNREACHABLE, ipv4(17, 0, &bad_udp), false),
        ("a later fragment", PORT_UNREACHABLE, ipv4(17, 1, &unchecked_udp), false),
        ("an echo request is", PORT_UNREACHABLE, ipv4(1, 0, &icmp(8)), true),
        ("an unreachable", PORT_UNREACHABLE, ipv4(1, 0, &icmp(3)), false),
        ("a time exceeded", PORT_UNREACHABLE, ipv4(1, 0, &icmp(11)), false),
        ("a router advertisement", PORT_UNREACHABLE, ipv4(1, 0, &icmp(9)), false),
        ("an ICMP type beyond the known ones", PORT_UNREACHABLE, ipv4(1, 0, &icmp(19)), false),
        ("an unknown protocol that sums up is", PORT_UNREACHABLE, ipv4(253, 0, &[0xff, 0xff]), true),
        ("an unknown protocol that does not", PORT_UNREACHABLE, ipv4(253, 0, &[1, 2]), false),
        ("UDP, by a reset", RejectWith::TcpReset, ipv4(17, 0, &unchecked_udp), false),
        ("a reset, by a reset", RejectWith::TcpReset, reset.clone(), false),
        ("a reset, by an ICMP error, is", PORT_UNREACHABLE, reset, true),
    ];
    let author = Author { src: Addr::from_v4([192, 0, 2, 1]), ident: 1 };
    for (name, with, packet, answered) in cases {
        assert_eq!(refuse_l3(with, &packet, author).is_some(), answered, "{name}");
    }
}

#[test]
fn nobody_is_told_about_a_packet_to_a_group() {
    let mut frame = frame(&ipv4(17, 0, &[0x13, 0x88, 0, 53, 0, 9, 0, 0, 0x71]));
    let error = IcmpError::new(3, 3);
    assert!(deserves_error(&Packet::parse(&mut frame, Offload::NONE).unwrap(), error));
    frame[..6].copy_from_slice(&Mac::BROADCAST.0);
    assert!(!deserves_error(&Packet::parse(&mut frame, Offload::NONE).unwrap(), error));
}

#[test]
fn a_quote_ends_where_the_error_is_full() {
    for (len, whole) in [(548, 576), (549, 576), (547, 575)] {
        let packet = ipv4(50, 0, &vec![7; len - 20]);
        let author = Author { src: Addr::from_v4([192, 0, 2, 1]), ident: 1 };
        let answer = refuse_l3(RejectWith::Icmp(3, 3), &packet, author).unwrap();
        assert_eq!(answer.len(), whole, "about {len} bytes");
    }
}

#[test]
fn a_reset_by_reject_never_carries_a_checksum_of_zero() {
    let ack = bytes("4500002800004000400669aec613227ec612227e0015c35000001b5900001b595010ffffe49a0000");
    let author = Author { src: Addr::from_v4([192, 0, 2, 1]), ident: 1 };
    let reset = refuse_l3(RejectWith::TcpReset, &ack, author).expect("a reset");
    assert_eq!(reset[36..38], [0xff, 0xff], "one's complement has two zeros, and Linux writes the other");
}
