//! The same verdict without walking every rule.
//!
//! What a rule asks of addresses, ports, protocol, interfaces and state is a box in eight dimensions. A packet is a
//! point; only rules whose box holds the point are looked at, in their order and with all their conditions, so that
//! counters and everything beyond the box keep their exact meaning. Boxes may be too large, never too small.
//!
//! ```text
//!   rules ─ those that ask for the same dimensions form a group ─ one tree for each group
//!             a node splits one dimension; a leaf lists the few rules that are left
//! ```
//!
//! Groups keep the trees small: a rule that leaves a dimension open would stand in every leaf below a node that
//! splits it (Vamanan et al., `EffiCuts`, 2010).

#![forbid(unsafe_code)]

use crate::conntrack::CtState;
use crate::filter::matches::{Match, View, ends_early};
use crate::filter::rule::{IfaceMatch, Matches, Rule};
use crate::packet::tuple::ports_header_len;
use arrayvec::ArrayVec;

/// Chains with fewer rules are walked as they are.
const MIN_RULES: usize = 16;
/// Groups with fewer rules are put together into one.
const MIN_GROUP: usize = 16;
/// A leaf with so few rules is not split.
const LEAF: usize = 4;
/// Places in all leaves of a group, for each of its rules: beyond that nodes are not split any more.
const MAX_COPIES: usize = 16;
/// The deepest tree.
const MAX_DEPTH: usize = 48;

const SRC: usize = 0;
const DST: usize = 1;
const SPORT: usize = 2;
const DPORT: usize = 3;
const PROTO: usize = 4;
const IN: usize = 5;
const OUT: usize = 6;
const STATE: usize = 7;
const DIMENSIONS: usize = 8;

/// No interface: what the router itself sends or takes.
const NO_IFACE: u128 = u16::MAX as u128;

/// Where a packet stands in each dimension.
#[derive(Clone, Copy, Debug)]
pub(in crate::filter) struct Point([u128; DIMENSIONS]);

impl Point {
    /// `None` for a packet whose upper-layer header is cut short: a rule may drop it for that before it looks at ports,
    /// so every rule must be asked.
    pub(in crate::filter) fn of(view: &View<'_>) -> Option<Self> {
        let pkt = view.pkt;
        let (sport, dport) = match ports_header_len(pkt.proto()) {
            None if ends_early(pkt) => return None,
            None => (0, 0),
            Some(len) if pkt.l4().len() < len => return None,
            Some(_) => pkt.ports()?,
        };
        let iface = |id: Option<crate::base::iface::IfaceId>| id.map_or(NO_IFACE, |id| u128::from(id.0));
        Some(Self([
            pkt.src().bits(),
            pkt.dst().bits(),
            u128::from(sport),
            u128::from(dport),
            u128::from(pkt.proto()),
            iface(view.in_iface),
            iface(view.out_iface),
            place_of(view.state()),
        ]))
    }
}

/// States in such an order that those which rules name together are neighbours.
const fn place_of(state: CtState) -> u128 {
    match state {
        CtState::Invalid => 0,
        CtState::New => 1,
        CtState::Untracked => 2,
        CtState::Related => 3,
        CtState::Established => 4,
    }
}

/// What a rule asks for, from … to in each dimension.
#[derive(Clone, Copy, Debug)]
struct Hull([(u128, u128); DIMENSIONS]);

const EVERYTHING: (u128, u128) = (0, u128::MAX);

impl Hull {
    /// `with_state` is off where the state may change during the walk: in the raw table.
    fn of(matches: &Matches, with_state: bool) -> Self {
        let Matches { src, dst, in_iface, out_iface, proto, fragment: _, listed } = matches;
        let mut hull = Self([EVERYTHING; DIMENSIONS]);
        for (dimension, addr) in [(SRC, src), (DST, dst)] {
            if let Some(addr) = addr.filter(|a| !a.negated)
                && addr.net.prefix_len().is_some()
            {
                let low = addr.net.addr.bits();
                hull.cut(dimension, low, low | !addr.net.mask);
            }
        }
        for (dimension, iface) in [(IN, in_iface), (OUT, out_iface)] {
            if let Some((low, high)) = iface.as_ref().and_then(IfaceMatch::span) {
                hull.cut(dimension, low, high);
            }
        }
        if let Some(proto) = proto.filter(|p| !p.negated) {
            hull.cut(PROTO, u128::from(proto.proto), u128::from(proto.proto));
        }
        // Matches are asked in their order: behind one that remembers packets, or drops them, nothing narrows the rule,
        // as that one wants to see what fails later.
        for m in listed {
            hull.narrow(m, with_state);
            if !only_answers(m) {
                break;
            }
        }
        hull
    }

    fn cut(&mut self, dimension: usize, low: u128, high: u128) {
        let (from, to) = &mut self.0[dimension];
        (*from, *to) = ((*from).max(low), (*to).min(high));
    }

    fn narrow(&mut self, m: &Match, with_state: bool) {
        use crate::filter::matches::multiport_span;
        match m {
            Match::Tcp(tcp) => self.ports(tcp.sport, tcp.dport),
            Match::Udp(udp) => self.ports(udp.sport, udp.dport),
            Match::Sctp(sctp) => self.ports(sctp.sport, sctp.dport),
            Match::Multiport(list) => {
                if let Some((is_source, low, high)) = multiport_span(list) {
                    self.cut(if is_source { SPORT } else { DPORT }, u128::from(low), u128::from(high));
                }
            }
            Match::Iprange(ranges) => {
                for (dimension, range) in [(SRC, ranges.src), (DST, ranges.dst)] {
                    if let Some(range) = range.filter(|r| !r.negated) {
                        self.cut(dimension, range.low.bits(), range.high.bits());
                    }
                }
            }
            Match::State(state) if with_state => self.states(|s| state.admits(s)),
            Match::Conntrack(conntrack) if with_state => self.states(|s| conntrack.admits(s)),
            _ => {}
        }
    }

    fn ports(
        &mut self,
        sport: Option<crate::filter::matches::PortMatch>,
        dport: Option<crate::filter::matches::PortMatch>,
    ) {
        for (dimension, port) in [(SPORT, sport), (DPORT, dport)] {
            if let Some(port) = port.filter(|p| !p.negated) {
                self.cut(dimension, u128::from(port.ports.0), u128::from(port.ports.1));
            }
        }
    }

    fn states(&mut self, admits: impl Fn(CtState) -> bool) {
        const ALL: [CtState; 5] =
            [CtState::Invalid, CtState::New, CtState::Untracked, CtState::Related, CtState::Established];
        let places = || ALL.into_iter().filter(|s| admits(*s)).map(place_of);
        match (places().min(), places().max()) {
            (Some(low), Some(high)) => self.cut(STATE, low, high),
            // No state at all: the box is empty, and a walk would never find the rule either.
            _ => self.cut(STATE, 1, 0),
        }
    }

    fn is_empty(&self) -> bool {
        self.0.iter().any(|(low, high)| low > high)
    }

    /// Which of the dimensions with many values it leaves open.
    fn group(&self) -> usize {
        [SRC, DST, SPORT, DPORT].iter().filter(|d| self.0[**d] != EVERYTHING).map(|d| 1 << d).sum()
    }
}

/// Whether asking it does nothing but give an answer, for packets that have a [`Point`].
fn only_answers(m: &Match) -> bool {
    match m {
        Match::Tcp(tcp) => tcp.option.is_none(),
        Match::Sctp(sctp) => sctp.chunks.is_none(),
        Match::Addrtype(_)
        | Match::Comment(_)
        | Match::Connmark(_)
        | Match::Conntrack(_)
        | Match::Dscp(_)
        | Match::Eui64(_)
        | Match::Helper(_)
        | Match::Hl(_)
        | Match::Iprange(_)
        | Match::Length(_)
        | Match::Mac(_)
        | Match::Mark(_)
        | Match::Multiport(_)
        | Match::Owner(_)
        | Match::Physdev(_)
        | Match::Pkttype(_)
        | Match::Policy(_)
        | Match::State(_)
        | Match::Tos(_)
        | Match::Ttl(_)
        | Match::Udp(_) => true,
        _ => false,
    }
}

/// Finds the rules of one chain that may hold for a packet.
#[derive(Clone, Debug)]
pub(in crate::filter) struct Classifier {
    trees: Vec<Tree>,
}

/// Trees of one chain: one for each choice among four dimensions, at most.
const MAX_TREES: usize = 16;

impl Classifier {
    /// `None` if the chain is so short that walking it is as good.
    pub(in crate::filter) fn new(rules: &[Rule], with_state: bool) -> Option<Self> {
        if rules.len() < MIN_RULES {
            return None;
        }
        let hulls: Vec<Hull> = rules.iter().map(|r| Hull::of(&r.matches, with_state)).collect();
        let mut groups: Vec<Vec<u32>> = vec![Vec::new(); MAX_TREES];
        for (index, hull) in hulls.iter().enumerate().filter(|(_, hull)| !hull.is_empty()) {
            groups[hull.group()].push(index as u32);
        }
        let (large, small): (Vec<_>, Vec<_>) =
            groups.into_iter().filter(|g| !g.is_empty()).partition(|g| g.len() >= MIN_GROUP);
        let mut rest = small.concat();
        rest.sort_unstable();
        let groups = large.into_iter().chain((!rest.is_empty()).then_some(rest));
        Some(Self { trees: groups.map(|group| Tree::build(&hulls, group)).collect() })
    }

    /// The rules from `from` on that may hold, in order.
    pub(in crate::filter) fn candidates(&self, point: &Point, from: u32) -> Candidates<'_> {
        let mut lists = ArrayVec::new();
        for tree in &self.trees {
            let list = tree.lookup(point);
            let start = if from == 0 { 0 } else { list.partition_point(|index| *index < from) };
            if start < list.len() {
                lists.push(&list[start..]);
            }
        }
        Candidates::Listed(lists)
    }
}

/// Rules to look at, in order.
#[expect(clippy::large_enum_variant, reason = "it lives on the stack, for one chain of one packet")]
pub(in crate::filter) enum Candidates<'a> {
    All { next: u32, len: u32 },
    Listed(ArrayVec<&'a [u32], MAX_TREES>),
}

impl Iterator for Candidates<'_> {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        match self {
            Self::All { next, len } => {
                let index = *next;
                *next += u32::from(index < *len);
                (index < *len).then_some(index)
            }
            Self::Listed(lists) => {
                let heads =
                    lists.iter().enumerate().filter_map(|(n, list)| list.first().map(|head| (*head, n)));
                let (index, n) = heads.min()?;
                lists[n] = &lists[n][1..];
                Some(index)
            }
        }
    }
}

#[derive(Clone, Debug)]
struct Tree {
    nodes: Vec<Node>,
    root: Child,
    /// The rules of all leaves, one after the other.
    list: Vec<u32>,
    /// Where each leaf begins and ends in the list.
    leaves: Vec<(u32, u32)>,
}

#[derive(Clone, Debug)]
struct Node {
    /// What lies below it goes left.
    threshold: u128,
    dimension: u8,
    left: Child,
    right: Child,
}

#[derive(Clone, Copy, Debug)]
enum Child {
    Node(u32),
    Leaf(u32),
}

impl Tree {
    fn lookup(&self, point: &Point) -> &[u32] {
        let mut child = self.root;
        loop {
            match child {
                Child::Node(n) => {
                    let node = &self.nodes[n as usize];
                    let is_left = point.0[usize::from(node.dimension)] < node.threshold;
                    child = if is_left { node.left } else { node.right };
                }
                Child::Leaf(n) => {
                    let (start, end) = self.leaves[n as usize];
                    return &self.list[start as usize..end as usize];
                }
            }
        }
    }

    fn build(hulls: &[Hull], rules: Vec<u32>) -> Self {
        let mut tree = Self { nodes: Vec::new(), root: Child::Leaf(0), list: Vec::new(), leaves: Vec::new() };
        let mut budget = rules.len() * MAX_COPIES;
        tree.root = tree.grow(hulls, rules, [EVERYTHING; DIMENSIONS], &mut budget, 0);
        tree
    }

    /// Splits what is left of the rules in one region, or makes it a leaf.
    fn grow(
        &mut self,
        hulls: &[Hull],
        rules: Vec<u32>,
        region: [(u128, u128); DIMENSIONS],
        budget: &mut usize,
        depth: usize,
    ) -> Child {
        let split = if rules.len() <= LEAF || depth >= MAX_DEPTH {
            None
        } else {
            Split::best(hulls, &rules, &region)
        };
        let Some(Split { dimension, threshold, copies, .. }) = split.filter(|s| s.copies <= *budget) else {
            let start = self.list.len() as u32;
            self.list.extend(rules);
            self.leaves.push((start, self.list.len() as u32));
            return Child::Leaf(self.leaves.len() as u32 - 1);
        };
        *budget -= copies;
        let range = |index: &u32| hulls[*index as usize].0[dimension];
        let left: Vec<u32> = rules.iter().copied().filter(|i| range(i).0 < threshold).collect();
        let right: Vec<u32> = rules.iter().copied().filter(|i| range(i).1 >= threshold).collect();
        drop(rules);
        let (mut below, mut above) = (region, region);
        below[dimension].1 = threshold - 1;
        above[dimension].0 = threshold;
        let place = self.nodes.len();
        let pending = Child::Leaf(0);
        self.nodes.push(Node { threshold, dimension: dimension as u8, left: pending, right: pending });
        let left = self.grow(hulls, left, below, budget, depth + 1);
        let right = self.grow(hulls, right, above, budget, depth + 1);
        (self.nodes[place].left, self.nodes[place].right) = (left, right);
        Child::Node(place as u32)
    }
}

/// A way to divide a region in two.
struct Split {
    dimension: usize,
    threshold: u128,
    /// Rules on the fuller side.
    most: usize,
    /// Rules that stand on both sides.
    copies: usize,
}

impl Split {
    /// The dimension whose median edge leaves the fewest rules on the fuller side, if that helps enough.
    fn best(hulls: &[Hull], rules: &[u32], region: &[(u128, u128); DIMENSIONS]) -> Option<Self> {
        let mut best: Option<Self> = None;
        let mut edges = Vec::with_capacity(rules.len() * 2);
        for (dimension, (low, high)) in region.iter().enumerate() {
            edges.clear();
            for index in rules {
                let (from, to) = hulls[*index as usize].0[dimension];
                if from > *low {
                    edges.push(from);
                }
                if to < *high {
                    edges.push(to + 1);
                }
            }
            if edges.is_empty() {
                continue;
            }
            let middle = edges.len() / 2;
            let (_, threshold, _) = edges.select_nth_unstable(middle);
            let threshold = *threshold;
            let (mut left, mut right) = (0, 0);
            for index in rules {
                let (from, to) = hulls[*index as usize].0[dimension];
                left += usize::from(from < threshold);
                right += usize::from(to >= threshold);
            }
            let split =
                Self { dimension, threshold, most: left.max(right), copies: left + right - rules.len() };
            let is_better = best.as_ref().is_none_or(|b| (split.most, split.copies) < (b.most, b.copies));
            if split.most < rules.len() && is_better {
                best = Some(split);
            }
        }
        // A split that leaves nearly everything on one side only makes the tree deeper.
        best.filter(|b| b.most * 8 <= rules.len() * 7)
    }
}

/// Whether the rule says the same of every packet of a connection in one direction and state, between the same
/// interfaces: then what it said once can be remembered.
pub(in crate::filter) fn is_steady(rule: &Rule) -> bool {
    let Matches { src: _, dst: _, in_iface: _, out_iface: _, proto: _, fragment, listed } = &rule.matches;
    fragment.is_none()
        && listed.iter().all(|m| match m {
            Match::Comment(_) | Match::State(_) | Match::Udp(_) | Match::Multiport(_) | Match::Iprange(_) => {
                true
            }
            Match::Tcp(tcp) => tcp.flags.is_none() && tcp.option.is_none(),
            Match::Conntrack(conntrack) => conntrack.is_state_alone(),
            _ => false,
        })
}
