//! Packets near to one, as the model of the ruleset knows them.

use super::Case;
use super::ends::Ends;
use stateway_core::filter::Ruleset;
use stateway_core::packet::tuple::{PROTO_TCP, PROTO_UDP};
use stateway_model::describe::flag_names;
use stateway_model::{Fate, Field, Model, Room, STATES, Set, Space, TooLarge, Way, state_number};
use stateway_trace::explain::Step;

/// So many values of a field are tried, the nearest first.
const MOST_VALUES: usize = 4;
/// What may be changed of a packet, the least first.
const CHANGES: &[&[Field]] = &[
    &[Field::Dport],
    &[Field::Sport],
    &[Field::Flags],
    &[Field::In],
    &[Field::Dst],
    &[Field::Src],
    &[Field::Proto],
    &[Field::Dst, Field::Dport],
    &[Field::In, Field::Dport],
    &[Field::Src, Field::Dport],
    &[Field::Proto, Field::Dport],
    &[Field::In, Field::Dst],
    &[Field::In, Field::Src],
    &[Field::Src, Field::Dst],
];

/// Packets near to one.
pub(super) struct Near<'a> {
    case: &'a Case<'a>,
    ends: &'a Ends,
    space: Space,
    port: u128,
    /// With its state, whatever else it is.
    state: Set,
}

impl<'a> Near<'a> {
    pub(super) fn new(case: &'a Case<'a>, rules: &Ruleset, ends: &'a Ends) -> Result<Self, TooLarge> {
        let names: Vec<String> = case.config.ifaces.iter().map(|iface| iface.name.clone()).collect();
        let port = names.iter().position(|name| name == case.port()).unwrap_or_default() as u128;
        let space = Space::new(rules.family, names, Room::USUAL)?;
        let state = case.account.steps.iter().find_map(|step| match step {
            Step::Conntrack { ctstate, .. } => STATES.into_iter().find(|state| state.word() == *ctstate),
            _ => None,
        });
        let state = match state {
            Some(state) => space.is(Field::State, state_number(state))?,
            None => space.full(),
        };
        Ok(Self { case, ends, space, port, state })
    }

    fn value(&self, field: Field) -> u128 {
        if field == Field::In { self.port } else { self.ends.value(field) }
    }

    /// Other ports, other packets, and what is other about them.
    pub(super) fn candidates(&self, rules: &Ruleset) -> Result<Vec<(String, Ends, String)>, TooLarge> {
        let space = &self.space;
        let is_local = self.case.account.steps.iter().any(|step| matches!(step, Step::Local));
        let way = if is_local { Way::Input } else { Way::Forward };
        let router = stateway_model::Router {
            has_helpers: !self.case.config.helpers.is_empty(),
            turns_back: self.case.config.mode == stateway_core::config::Mode::Route,
        };
        let model = Model::new(rules, space, way, router)?;
        let passed = space.for_certain(model.of(Fate::Passed))?.and(&model.real)?.and(&self.state)?;
        let mut found = Vec::new();
        for change in CHANGES {
            let mut near = passed.clone();
            for field in
                [Field::Sport, Field::Dport, Field::Src, Field::Dst, Field::Proto, Field::In, Field::Flags]
            {
                // Of another protocol also its flags are others.
                let is_of_proto = field == Field::Flags && change.contains(&Field::Proto);
                if !change.contains(&field) && !is_of_proto {
                    near = near.and(&space.is(field, self.value(field))?)?;
                }
            }
            if change.contains(&Field::Proto) {
                near = near.and(&space.one_of(Field::Proto, [PROTO_TCP, PROTO_UDP].map(u128::from))?)?;
            }
            if !near.is_empty() {
                self.nearest(change, near, &mut found)?;
            }
        }
        Ok(found)
    }

    /// The nearest packets of a set, by the values of the fields that may be others.
    fn nearest(
        &self,
        change: &[Field],
        mut near: Set,
        found: &mut Vec<(String, Ends, String)>,
    ) -> Result<(), TooLarge> {
        let (space, mut ends, mut port) = (&self.space, *self.ends, self.port);
        let mut words = Vec::new();
        for (at, field) in change.iter().enumerate() {
            let others: Vec<Field> = Field::ALL.into_iter().filter(|other| other != field).collect();
            let values = space.forget(&near, &others, true)?;
            let Some(values) = nearest_values(space, &values, *field, self.value(*field))? else {
                return Ok(());
            };
            if at + 1 == change.len() {
                for value in values {
                    let (mut ends, mut port, mut words) = (ends, port, words.clone());
                    self.set(*field, value, (&mut ends, &mut port, &mut words));
                    found.push((space.ifaces[port as usize].clone(), ends, words.join(" and ")));
                }
                return Ok(());
            }
            let value = values[0];
            near = near.and(&space.is(*field, value)?)?;
            self.set(*field, value, (&mut ends, &mut port, &mut words));
        }
        Ok(())
    }

    fn set(&self, field: Field, value: u128, (ends, port, words): (&mut Ends, &mut u128, &mut Vec<String>)) {
        if field == Field::In {
            *port = value;
        } else {
            ends.set(field, value);
            if field == Field::Proto && value == PROTO_TCP.into() {
                ends.flags = 2;
            }
        }
        if value != self.value(field) {
            words.push(self.words(field, value));
        }
    }

    fn words(&self, field: Field, value: u128) -> String {
        let was = self.value(field);
        let show = |value: u128| match field {
            Field::In => self.space.ifaces.get(value as usize).cloned().unwrap_or_default(),
            Field::Src | Field::Dst => stateway_model::describe::address(self.ends.family, value),
            Field::Proto => stateway_model::describe::protocol_word(value as u8),
            Field::Flags => flag_names(value),
            Field::Dport if !matches!(self.ends.proto, PROTO_TCP | PROTO_UDP) => {
                format!("{}/{}", value >> 8, value & 0xff)
            }
            _ => value.to_string(),
        };
        let word = match field {
            Field::In => "in at",
            Field::Src => "from",
            Field::Dst => "to",
            Field::Sport => "from port",
            Field::Dport if !matches!(self.ends.proto, PROTO_TCP | PROTO_UDP) => "of type",
            Field::Dport => "to port",
            Field::Proto => "of protocol",
            Field::Flags => "with flags",
            _ => "otherwise",
        };
        format!("{word} {} in place of {}", show(value), show(was))
    }
}

/// The values of a set of values that are nearest to one, the nearest first.
fn nearest_values(
    space: &Space,
    values: &Set,
    field: Field,
    was: u128,
) -> Result<Option<Vec<u128>>, TooLarge> {
    const MOST_RANGES: usize = 4096;
    let Some(ranges) = space.ranges(values, field, MOST_RANGES)? else { return Ok(None) };
    let mut near: Vec<u128> = ranges.iter().map(|(low, high)| was.clamp(*low, *high)).collect();
    // Among flags and protocols there is no distance; a SYN is the plainest segment.
    near.sort_by_key(|value| match field {
        Field::Flags => u128::from(*value != 2),
        _ => value.abs_diff(was),
    });
    near.truncate(MOST_VALUES);
    Ok((!near.is_empty()).then_some(near))
}
