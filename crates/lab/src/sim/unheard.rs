//! The same router again, to which nobody listens, as in a router at work: both must come to the same.

#![forbid(unsafe_code)]

use stateway_core::RouterError;
use stateway_core::base::{Emission, IfaceId, Instant};
use stateway_core::config::RouterConfig;
use stateway_core::packet::Frame;
use stateway_core::record::NoRecord;
use stateway_core::router::{Outcome, Router, Worker};

#[derive(Debug)]
pub(super) struct Unheard {
    router: Router,
    worker: Worker,
}

impl Unheard {
    pub(super) fn new(config: RouterConfig) -> Result<Self, Vec<RouterError>> {
        let router = Router::new(config)?;
        Ok(Self { worker: router.worker(), router })
    }

    /// Takes a frame that the other router has taken, and looks whether that came to the same.
    pub(super) fn process(&mut self, now: Instant, iface: IfaceId, frame: &[u8], heard: (Outcome, &[u8])) {
        let mut buffer = frame.to_vec();
        let outcome =
            self.router.process(&mut self.worker, now, iface, Frame::new(&mut buffer), &mut NoRecord);
        assert_eq!((outcome, &*buffer), heard, "a router that is listened to decides otherwise");
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.router.handle_timeout(&mut self.worker, now);
    }

    pub(super) fn compare_emissions(&mut self, heard: &[Emission]) {
        let emissions: Vec<Emission> = self.worker.take_emissions().collect();
        assert_eq!(emissions, heard, "a router that is listened to sends otherwise");
    }

    pub(super) fn replace_rules(&self, v4: Option<&str>, v6: Option<&str>) {
        self.router.replace_rules(v4, v6).expect("the other router has taken them");
    }

    pub(super) fn compare_counters(&self, heard: &Router) {
        let counted = |router: &Router| {
            let rules: String = router.rules().all().map(|rules| rules.render(true)).collect();
            (rules, router.drop_counters().collect::<Vec<_>>())
        };
        assert_eq!(counted(&self.router), counted(heard), "a router that is listened to counts otherwise");
    }
}
