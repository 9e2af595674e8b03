//! What a ruleset can refuse at all, so that one that refuses nothing does not take the place of one that does unnoticed.

#![forbid(unsafe_code)]

use crate::filter::{Chain, Policy, Ruleset, Table, Target};

impl Ruleset {
    /// Whether every packet passes because nothing is said of any: no rules, and every policy is ACCEPT.
    pub fn is_empty(&self) -> bool {
        Table::ALL.into_iter().all(|table| self.is_table_empty(table))
    }

    /// Whether `table` has no rules and every policy in it is ACCEPT, as if it were not there.
    pub fn is_table_empty(&self, table: Table) -> bool {
        self.chains(table).iter().all(|chain| chain.rules.is_empty() && !drops_by_policy(chain))
    }

    /// Whether there is a packet that `table` may refuse.
    pub fn may_refuse(&self, table: Table) -> bool {
        let refuses = |chain: &Chain| {
            chain.rules.iter().any(|rule| matches!(rule.target, Target::Drop | Target::Reject(_)))
        };
        self.chains(table).iter().any(|chain| drops_by_policy(chain) || refuses(chain))
    }
}

fn drops_by_policy(chain: &Chain) -> bool {
    chain.policy == Some(Policy::Drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Family;

    #[test]
    fn a_table_refuses_by_a_policy_or_by_a_rule() {
        for (text, is_empty, may_refuse) in [
            ("*filter\nCOMMIT\n", true, false),
            ("*filter\n:FORWARD ACCEPT [0:0]\n:mine - [0:0]\nCOMMIT\n", true, false),
            ("*filter\n:FORWARD DROP [0:0]\nCOMMIT\n", false, true),
            ("*filter\n-A FORWARD -j ACCEPT\nCOMMIT\n", false, false),
            ("*filter\n-A FORWARD -p tcp -j REJECT\nCOMMIT\n", false, true),
            ("*filter\n:mine - [0:0]\n-A mine -j DROP\n-A FORWARD -j mine\nCOMMIT\n", false, true),
        ] {
            let ruleset = Ruleset::load(text, Family::Ipv4, &[]).unwrap().ruleset;
            assert_eq!(ruleset.is_empty(), is_empty, "{text}");
            assert_eq!(ruleset.may_refuse(Table::Filter), may_refuse, "{text}");
            assert!(ruleset.is_table_empty(Table::Raw) && !ruleset.may_refuse(Table::Raw), "{text}");
        }
    }
}
